"""How far a run is, read from the end of its log."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmlab.cluster.records import read_record
from lmlab.config import RunConfig, load_yaml
from lmlab.errors import UserError
from lmlab.layout import CONFIG
from lmlab.runs.run import ACCOUNT, METRICS, RESULT
from lmlab.training.budget import total_steps

TAIL = 64 * 1024
"""Bytes read from the end of a log."""


@dataclass(frozen=True)
class Progress:
    """What the last rows of a run say; None where they do not."""

    step: int | None = None
    steps: int | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    """At the pace of the last rows."""


def progress_of(directory: Path) -> Progress:
    """Read how far a run is; a damaged or empty directory gives an empty answer."""
    rows = _last_rows(directory / METRICS)
    latest: dict[str, Any] = {}
    for row in rows:
        latest |= {key: value for key, value in row.items() if value is not None}
    step = latest.get("step")
    steps = _steps(directory)
    return Progress(
        step=step,
        steps=steps,
        train_loss=latest.get("train/loss"),
        val_loss=latest.get("val/loss"),
        tokens_per_second=latest.get("tokens_per_second"),
        seconds_left=_seconds_left(rows, step, steps),
    )


def _last_rows(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            lines = file.read().decode("utf-8", errors="replace").split("\n")
    except OSError:
        return []
    rows = []
    for line in lines:  # the first may be cut, the last may still be being written
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def _steps(directory: Path) -> int | None:
    result = read_record(directory / RESULT)
    if result.get("steps"):
        return int(result["steps"])
    try:
        config: RunConfig = load_yaml(directory / CONFIG)
    except UserError:
        return None
    if config.budget.kind == "steps":
        return config.budget.steps
    account, per_step = read_record(directory / ACCOUNT), config.tokens_per_step()
    known = {"parameters", "total_forward_flops", "context_length"} <= account.keys()
    if per_step is None or not known:
        return None
    per_token = 3 * account["total_forward_flops"] / account["context_length"]
    return total_steps(config.budget, per_step, account["parameters"], per_token)


def _seconds_left(rows: list[dict[str, Any]], step: int | None, steps: int | None) -> float | None:
    timed = [row for row in rows if isinstance(row.get("seconds"), int | float)]
    if step is None or steps is None or len(timed) < 2:
        return None
    first, last = timed[0], timed[-1]
    done = last["step"] - first["step"]
    return (steps - step) * (last["seconds"] - first["seconds"]) / done if done > 0 else None
