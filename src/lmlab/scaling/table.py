"""Tables of runs: parameters, tokens, FLOPs and loss, from files and folders."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lmlab.errors import UserError
from lmlab.scaling.law import FLOPS_PER_PARAMETER

ALIASES: dict[str, tuple[str, ...]] = {
    "parameters": ("parameters", "n", "params", "num_params", "model_size"),
    "tokens": ("tokens", "d", "num_tokens", "train_tokens", "training_tokens"),
    "flops": ("flops", "c", "compute", "compute_budget", "train_flops", "training_flop"),
    "loss": ("loss", "val_loss", "final_loss"),
}
"""Names of the columns, without regard to case; a space counts as an underscore."""
FORMATS = (".csv", ".json", ".jsonl", ".parquet")
PLAUSIBLE = (0.05, 200)
"""Range of C / 6 N D: outside of it a column is in other units."""
LEFT_OUT = ("run", "seconds", "tokens_per_second", "n", "mean", "sd", "ci_low", "ci_high")
"""Columns of results, which do not tell runs apart."""


@dataclass(frozen=True)
class Runs:
    """A table of runs that finished; FLOPs are of training, loss in nats."""

    parameters: Float[np.ndarray, " runs"]
    tokens: Float[np.ndarray, " runs"]
    flops: Float[np.ndarray, " runs"]
    loss: Float[np.ndarray, " runs"]
    source: str = "the table"
    columns: dict[str, list[Any]] = field(default_factory=dict)
    """All columns by their names in the source."""
    notes: tuple[str, ...] = ()
    """What was left out, in sentences."""

    def __len__(self) -> int:
        return len(self.loss)

    def take(self, index: Any, *notes: str) -> "Runs":
        """Return the runs at an index or a mask."""
        rows = np.arange(len(self))[index]
        columns = {k: [v[i] for i in rows] for k, v in self.columns.items()}
        return Runs(
            self.parameters[rows],
            self.tokens[rows],
            self.flops[rows],
            self.loss[rows],
            self.source,
            columns,
            (*self.notes, *notes),
        )

    def column(self, name: str) -> Float[np.ndarray, " runs"]:
        """Return a column as numbers; raises UserError when it is missing or is text."""
        if name not in self.columns:
            raise UserError(
                f"{self.source} has no column '{name}'; its columns: {', '.join(self.columns)}"
            )
        return np.array([_number(v, name, i, self) for i, v in enumerate(self.columns[name])])


def make_runs(
    *,
    loss: Any,
    parameters: Any = None,
    tokens: Any = None,
    flops: Any = None,
    source: str = "the table",
    columns: Mapping[str, Sequence[Any]] | None = None,
    notes: tuple[str, ...] = (),
) -> Runs:
    """Return a checked table; one of parameters, tokens and flops may be missing: C = 6 N D.

    Raises UserError for values that are not finite and positive, and for repeated rows.
    """
    given = {"parameters": parameters, "tokens": tokens, "flops": flops, "loss": loss}
    known = {k: np.asarray(v, float) for k, v in given.items() if v is not None}
    missing = [name for name in given if name not in known]
    lacking = [name for name in missing if name == "loss" or len({*missing} - {"loss"}) > 1]
    if lacking:
        raise UserError(
            f"{source} has no column for {' and '.join(lacking)}; name it as "
            f"--columns {' '.join(f'{name}=COLUMN' for name in lacking)}"
        )
    if not len(known["loss"]):
        raise UserError(f"{source} has no runs")
    for name, values in known.items():
        wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if len(wrong):
            row = int(wrong[0])
            raise UserError(
                f"{source}, run {row + 1}: {name} is {values[row]:g}, it must be finite and "
                f"positive; remove the {'runs that diverged' if name == 'loss' else 'row'}"
            )
    if "flops" in missing:
        known["flops"] = FLOPS_PER_PARAMETER * known["parameters"] * known["tokens"]
    for name, other in (("tokens", "parameters"), ("parameters", "tokens")):
        if name in missing:
            known[name] = known["flops"] / (FLOPS_PER_PARAMETER * known[other])
    runs = Runs(
        known["parameters"],
        known["tokens"],
        known["flops"],
        known["loss"],
        source,
        {k: list(v) for k, v in (columns or {}).items()},
        notes,
    )
    _check_units(runs)
    _check_repeated(runs)
    return runs


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
    rows = [row for row in _rows(path) if all(_shown(row.get(k)) == v for k, v in _items(where))]
    if not rows:
        kept = " with ".join(["", " ".join(f"{k}={v}" for k, v in _items(where))] if where else "")
        raise UserError(f"{path} has no runs{kept}")
    finished = [row for row in rows if row.get("status", "finished") == "finished"]
    notes = []
    if len(finished) < len(rows):
        notes.append(f"{len(rows) - len(finished)} of {len(rows)} runs did not finish: left out.")
    columns = {key: [row.get(key) for row in finished] for key in dict.fromkeys(_keys(rows))}
    chosen = _choose(columns, dict(names or {}), path)
    values = {
        name: [_as_number(v, column, i, path) for i, v in enumerate(columns[column])]
        for name, column in chosen.items()
    }
    runs = make_runs(
        **{"loss": None, **values}, source=str(path), columns=columns, notes=tuple(notes)
    )
    if not drop_highest:
        return runs
    if drop_highest >= len(runs):
        raise UserError(f"{path} has {len(runs)} runs; {drop_highest} cannot be dropped")
    kept_rows = np.sort(np.argsort(runs.loss)[:-drop_highest])
    return runs.take(kept_rows, f"The {drop_highest} runs of highest loss are left out.")


def _items(where: Mapping[str, str] | None) -> list[tuple[str, str]]:
    return list((where or {}).items())


def _keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [key for row in rows for key in row]


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix not in FORMATS:
        raise UserError(f"{path} is not a table; give a file ending in {', '.join(FORMATS)}")
    if path.suffix == ".parquet":
        return _parquet(path)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".csv":
            return list(csv.DictReader(text.splitlines()))
        found: Any = (
            json.loads(text)
            if path.suffix == ".json"
            else [json.loads(line) for line in text.splitlines() if line.strip()]
        )
    except ValueError as error:  # also what is not UTF-8
        raise UserError(f"{path} cannot be read: {error}") from error
    if isinstance(found, dict):
        found = found.get("runs")
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise UserError(f"{path} is not a table: expected a list of objects, one a run")
    return found


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table as read
    except ImportError as error:
        raise UserError("Parquet files need pyarrow: pip install 'lmlab[parquet]'") from error
    try:
        rows: list[dict[str, Any]] = read(path).to_pylist()
    except ArrowException as error:
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


def _as_number(value: Any, column: str, row: int, path: Path) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"{path}, run {row + 1}: {column} is {value!r}, not a number") from None


def _number(value: Any, name: str, row: int, runs: Runs) -> float:
    return _as_number(value, name, row, Path(runs.source))


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _check_units(runs: Runs) -> None:
    ratio = runs.flops / (FLOPS_PER_PARAMETER * runs.parameters * runs.tokens)
    low, high = PLAUSIBLE
    wrong = np.flatnonzero((ratio < low) | (ratio > high))
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            f"{runs.source}, run {row + 1}: {runs.flops[row]:.3g} FLOPs are {ratio[row]:.3g} times "
            f"6 x {runs.parameters[row]:.3g} parameters x {runs.tokens[row]:.3g} tokens; check the "
            "units of the columns"
        )


def _check_repeated(runs: Runs) -> None:
    """Refuse rows that repeat a run, or that give one run two losses."""
    own = [k for k in runs.columns if k not in LEFT_OUT and not _is_loss(runs.columns[k], runs)]
    seen: dict[object, int] = {}
    for row in range(len(runs)):
        others = tuple(_key(runs.columns[k][row]) for k in own)
        key = (runs.parameters[row], runs.tokens[row], others)
        first = seen.setdefault(key, row)
        if first == row:
            continue
        pair = f"{runs.source}, runs {first + 1} and {row + 1}"
        what = f"{runs.parameters[row]:.4g} parameters and {runs.tokens[row]:.4g} tokens"
        if runs.loss[first] == runs.loss[row]:
            raise UserError(f"{pair} are the same ({what}); remove one")
        raise UserError(
            f"{pair} contradict each other: {what}, losses {runs.loss[first]:g} and "
            f"{runs.loss[row]:g}; remove one, or add a column that tells them apart, such as seed"
        )


def _is_loss(values: Sequence[Any], runs: Runs) -> bool:
    try:
        return all(float(v) == loss for v, loss in zip(values, runs.loss, strict=True))
    except (TypeError, ValueError):
        return False


def _key(value: Any) -> Any:
    return (
        str(value)
        if isinstance(value, float) and math.isnan(value)
        else json.dumps(value, default=str)
    )
