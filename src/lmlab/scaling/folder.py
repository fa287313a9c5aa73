"""Tables of the runs in a folder, counted by the accounting that each run stored."""

import math
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

    With `curves`, a row for each evaluation of each run instead. Raises UserError when there are
    none, or when a run has no account of its model.
    """
    found = [read_run(path) for path in find_runs(directory)]
    finished = [run for run in found if run.status == "finished"]
    if not finished:
        raise UserError(f"there are no finished runs in {directory}")
    rows = [row for run in finished for row in _rows(run, counting, directory, curves)]
    notes = [f"Counted: {counting}."]
    if len(finished) < len(found):
        notes.append(f"{len(found) - len(finished)} of {len(found)} runs did not finish: left out.")
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
    parameters, flops_per_token = counted(run.account, run.config["model"], counting)
    settings = flatten(run.config)
    own = {column: settings.get(key) for column, key in SETTINGS.items()}
    own |= {"run": str(run.directory.relative_to(root))}
    if curves:
        points = list(zip(*run.series("val/loss", x="tokens"), strict=True))
        points = [(tokens, loss) for tokens, loss in points if tokens > 0]
    else:
        loss = run.result.get("val_loss")
        points = [(run.result["tokens"], math.nan if loss is None else loss)]
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
