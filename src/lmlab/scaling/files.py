"""Files of runs: CSV, JSON, JSONL and Parquet."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmlab.errors import UserError
from lmlab.scaling.table import Runs, as_number, make_runs, shown_value

ALIASES: dict[str, tuple[str, ...]] = {
    "parameters": ("parameters", "n", "params", "num_params", "model_size"),
    "tokens": ("tokens", "d", "num_tokens", "train_tokens", "training_tokens"),
    "flops": ("flops", "c", "compute", "compute_budget", "train_flops", "training_flop"),
    "loss": ("loss", "val_loss", "final_loss"),
}
"""Names of the columns, without regard to case; a space counts as an underscore."""
FORMATS = (".csv", ".json", ".jsonl", ".parquet")


def read_table(
    path: Path,
    *,
    names: Mapping[str, str] | None = None,
    where: Mapping[str, str] | None = None,
    drop_highest: int = 0,
) -> Runs:
    """Read a CSV, JSON, JSONL or Parquet file, such as one of `lmlab collect --format csv`.

    `names` maps parameters, tokens, flops and loss to columns, `where` keeps the rows with these
    values, `drop_highest` leaves out that many runs of highest loss. Runs whose status is not
    `finished` are left out. Raises UserError for a file that is no table of runs.
    """
    every = _rows(path)
    keys = dict.fromkeys(key for row in every for key in row)
    for name in where or {}:
        if every and name not in keys:
            raise UserError(f"{path} has no column '{name}'; its columns: {', '.join(keys)}")
    rows = [row for row in every if all(shown_value(row.get(k)) == v for k, v in _items(where))]
    if not rows:
        kept = " with ".join(["", " ".join(f"{k}={v}" for k, v in _items(where))] if where else "")
        raise UserError(f"{path} has no runs{kept}")
    finished = [row for row in rows if row.get("status", "finished") == "finished"]
    notes = []
    if len(finished) < len(rows):
        notes.append(f"{len(rows) - len(finished)} of {len(rows)} runs did not finish: left out.")
    columns = {key: [row.get(key) for row in finished] for key in keys}
    chosen = _choose(columns, dict(names or {}), path)
    values = {
        name: [as_number(v, column, i, str(path)) for i, v in enumerate(columns[column])]
        for name, column in chosen.items()
    }
    runs = make_runs(
        **{"loss": None, **values}, source=str(path), columns=columns, notes=tuple(notes)
    )
    return runs.without_highest(drop_highest)


def _items(where: Mapping[str, str] | None) -> list[tuple[str, str]]:
    return list((where or {}).items())


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix not in FORMATS:
        raise UserError(f"{path} is not a table; give a file ending in {', '.join(FORMATS)}")
    if path.suffix == ".parquet":
        return _parquet(path)
    try:
        # no universal newlines: a quoted cell keeps its own
        text = path.read_bytes().decode("utf-8-sig")
        if path.suffix == ".csv":
            return _csv(path, text)
        found: Any = (
            json.loads(text)
            if path.suffix == ".json"
            else [json.loads(line) for line in text.split("\n") if line.strip()]
        )
    except (ValueError, csv.Error, RecursionError) as error:  # also what is not UTF-8
        raise UserError(f"{path} cannot be read: {error}") from error
    if isinstance(found, dict):
        found = found.get("runs")
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise UserError(f"{path} is not a table: expected a list of objects, one a run")
    return found


def _csv(path: Path, text: str) -> list[dict[str, Any]]:
    lines = csv.reader(io.StringIO(text, newline=""))
    head = next((cells for cells in lines if cells), [])
    repeated = [name for name in dict.fromkeys(head) if name.strip() and head.count(name) > 1]
    if repeated:
        raise UserError(f"{path} has the column '{repeated[0]}' twice; rename one")
    rows = []
    for cells in lines:
        if cells and len(cells) != len(head):
            raise UserError(
                f"{path}, line {lines.line_num} has {len(cells)} cells, its header {len(head)}; "
                "correct the line: quote a cell that holds a comma"
            )
        if cells:
            rows.append(dict(zip(head, cells, strict=True)))
    return rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table as read
    except ImportError as error:
        raise UserError("Parquet files need pyarrow: pip install 'lmlab[parquet]'") from error
    try:
        rows: list[dict[str, Any]] = read(path).to_pylist()
    except (ArrowException, OSError) as error:  # damaged pages are an OSError
        raise UserError(f"{path} cannot be read: {error}") from error
    return rows


def _choose(columns: Mapping[str, Any], names: dict[str, str], path: Path) -> dict[str, str]:
    for name, column in names.items():
        if name not in ALIASES:
            raise UserError(f"--columns: '{name}' is not one of {', '.join(ALIASES)}")
        if column not in columns:
            raise UserError(f"{path} has no column '{column}'; its columns: {', '.join(columns)}")
    plain = {key.strip().casefold().replace(" ", "_"): key for key in reversed(list(columns))}
    for name, aliases in ALIASES.items():
        # "n" of `lmlab collect` is the number of seeds, beside a column "parameters"
        found = next((plain[alias] for alias in aliases if alias in plain), None)
        if found is not None:
            names.setdefault(name, found)
    return names
