"""Tables of the runs in a folder, counted by the accounting that each run stored."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmlab.errors import UserError
from lmlab.runs.read import RunRecord, find_runs, read_run
from lmlab.scaling.counting import Counting, counted
from lmlab.scaling.table import Runs, make_runs
from lmlab.schema import flatten

SETTINGS = {
    "lr": "lr",
    "batch_size": "trainer.batch_size",
    "seed": "seed",
    "parametrization": "model.parametrization",
}
"""Columns and the keys of the configuration that they are read from."""


def read_folder(directory: Path, counting: Counting = "all", *, curves: bool = False) -> Runs:
    """Return the finished runs below a folder, with their final validation loss.

    With `curves`, a row for each evaluation of each run instead; runs without one are left out.
    Raises UserError when there are none, or when a run lacks what a row needs.
    """
    found = [read_run(path) for path in find_runs(directory)]
    finished = [run for run in found if run.status == "finished"]
    if not finished:
        raise UserError(f"there are no finished runs in {directory}")
    rows_by_run = [_rows(run, counting, directory, curves) for run in finished]
    rows = [row for rows in rows_by_run for row in rows]
    if not rows:
        raise UserError(
            f"the {len(finished)} finished runs in {directory} have no val/loss in metrics.jsonl, "
            "which training curves are made of; give a folder of pretraining runs"
        )
    notes = [f"Counted: {counting}."]
    if len(finished) < len(found):
        notes.append(f"{len(found) - len(finished)} of {len(found)} runs did not finish: left out.")
    if without := sum(not rows for rows in rows_by_run):
        notes.append(f"{without} of {len(finished)} finished runs have no val/loss: left out.")
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    return make_runs(
        parameters=columns["parameters"],
        tokens=columns["tokens"],
        flops=columns["flops"],
        loss=columns["loss"],
        source=str(directory),
        columns=columns,
        notes=tuple(notes),
    )


def _rows(run: RunRecord, counting: Counting, root: Path, curves: bool) -> list[Mapping[str, Any]]:
    if not run.account:
        raise UserError(f"{run.directory} has no account.json; resume the run to write it")
    try:
        parameters, flops_per_token = counted(run.account, run.config["model"], counting)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise UserError(
            f"{run.directory}: account.json or config.yaml is damaged ({error!r}); repair it, or "
            "remove the run"
        ) from error
    settings = flatten(run.config)
    own = {column: settings.get(key) for column, key in SETTINGS.items()}
    own |= {"run": str(run.directory.relative_to(root))}
    if curves:
        points = list(zip(*run.series("val/loss", x="tokens"), strict=True))
        points = [(tokens, loss) for tokens, loss in points if tokens > 0]
    else:
        points = [(_number(run, "tokens"), _number(run, "val_loss"))]
    return [
        {
            "parameters": parameters,
            "tokens": tokens,
            "flops": tokens * flops_per_token,
            "loss": loss,
            **own,
        }
        for tokens, loss in points
    ]


def _number(run: RunRecord, key: str) -> float:
    value = run.result.get(key)
    if not isinstance(value, int | float):
        raise UserError(
            f"{run.directory} has {key}={json.dumps(value)} in result.json, where a fit needs a "
            "number; give a folder of pretraining runs"
        )
    return value
