"""The results of a sweep: what was varied, what came out, and how sure that is."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmlab.errors import UserError
from lmlab.layout import CONFIG
from lmlab.runs.read import Run, read_run
from lmlab.runs.statistics import Estimate, estimate
from lmlab.schema import flatten

NOT_VARIED = ("name", "resume", "logger", "slurm")
SEED = "seed"
RESULTS = (
    "val_loss",
    "val_bits_per_byte",
    "train_loss",
    "best_val_loss",
    "steps",
    "tokens",
    "seconds",
    "tokens_per_second",
    "parameters",
    "flops",
)
METRICS = {
    "val_loss": "validation loss",
    "train_loss": "training loss",
    "best_val_loss": "best validation loss",
}
"""How metrics are called in a sentence, where that is not their key."""
HIGHER_IS_BETTER = ("tokens_per_second",)
Settings = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Row:
    """One run of a sweep."""

    run: Run
    settings: Settings
    """What is varied, as (key, value), the seed aside."""
    seed: Any
    metric: float | None
    """None for a run that has no result, or diverged."""


@dataclass(frozen=True)
class Setting:
    """The runs that differ in their seed only."""

    settings: Settings
    rows: tuple[Row, ...]
    estimate: Estimate
    """Over the runs that ended with a finite metric."""
    diverged: int
    unfinished: int

    @property
    def values(self) -> list[float]:
        """The metric of each run that has one."""
        return [row.metric for row in self.rows if row.metric is not None]

    def __str__(self) -> str:
        return describe(self.settings)


@dataclass(frozen=True)
class Sweep:
    """All runs below a folder."""

    directory: Path
    metric: str
    axes: tuple[str, ...]
    rows: tuple[Row, ...]
    settings: tuple[Setting, ...]
    copies: int
    """Runs left out, as a newer one has the same settings and seed: it would count as a seed."""

    @property
    def metric_name(self) -> str:
        """The metric in words."""
        return METRICS.get(self.metric, self.metric.replace("_", " "))

    @property
    def sign(self) -> int:
        """What the metric is multiplied by for the lowest to be the best."""
        return -1 if self.metric in HIGHER_IS_BETTER else 1

    @property
    def note(self) -> str:
        """What is not in it, in a sentence; nothing when it is whole."""
        if not self.copies:
            return ""
        runs = "1 run is" if self.copies == 1 else f"{self.copies} runs are"
        return f"{runs} left out, for newer ones with the same settings and seed."


def collect(directory: Path, metric: str = "val_loss") -> Sweep:
    """Read the runs below a folder; raises UserError when there are none."""
    if metric not in RESULTS:
        raise UserError(f"'{metric}' is not one of {', '.join(RESULTS)}")
    runs = [read_run(path) for path in _find(directory)]
    if not runs:
        raise UserError(f"there are no runs in {directory}; name a sweep's folder")
    varied = [_varied(run.config) for run in runs]
    axes = find_axes(varied)
    rows = []
    for run, values in zip(runs, varied, strict=True):
        settings = tuple((axis, values.get(axis)) for axis in axes)
        rows.append(Row(run, settings, values.get(SEED), _metric(run, metric)))
    rows.sort(key=lambda row: str(row.run.environment.get("started", "")))
    newest = {json.dumps([row.settings, row.seed], default=str): row for row in rows}
    kept = sorted(newest.values(), key=lambda row: (_order(row.settings), _comparable(row.seed)))
    groups: dict[str, list[Row]] = {}
    for row in kept:
        groups.setdefault(json.dumps(row.settings, default=str), []).append(row)
    settings_ = tuple(_setting(group) for group in groups.values())
    return Sweep(directory, metric, axes, tuple(kept), settings_, len(rows) - len(kept))


def find_axes(configs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the keys that differ between runs, without those that only follow another one.

    `optimizer.lr` follows `lr`; what a choice brings along follows its `kind`.
    """
    keys = dict.fromkeys(key for config in configs for key in config if key != SEED)
    columns = {key: [json.dumps(config.get(key)) for config in configs] for key in keys}
    differing = [key for key, column in columns.items() if len(set(column)) > 1]
    preferred = sorted(differing, key=lambda key: (not key.endswith(".kind"), key.count(".")))
    kept: list[str] = []
    for key in preferred:
        follows = (
            _determines(columns[other], columns[key])
            and (_determines(columns[key], columns[other]) or _belongs(key, other))
            for other in kept
        )
        if not any(follows):
            kept.append(key)
    return tuple(key for key in differing if key in kept)


def _belongs(key: str, kind: str) -> bool:
    return kind.endswith(".kind") and key.startswith(kind.removesuffix("kind"))


def _determines(first: Sequence[str], second: Sequence[str]) -> bool:
    return len(set(zip(first, second, strict=True))) == len(set(first))


def describe(settings: Settings) -> str:
    """Return `lr=0.001, ffn=glu`; a sweep of seeds only has nothing to say."""
    return ", ".join(f"{short(key)}={show(value)}" for key, value in settings) or "all runs"


def short(key: str) -> str:
    """Return the last part of a key that says something: `model.ffn.kind` is `ffn`."""
    parts = key.split(".")
    return parts[-2] if parts[-1] == "kind" and len(parts) > 1 else parts[-1]


def show(value: Any) -> str:
    """Return a value as one would write it on the command line."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _find(directory: Path) -> list[Path]:
    found = []
    for folder, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if CONFIG in files:
            found.append(Path(folder))
            folders.clear()
    return sorted(found)


def _varied(config: Mapping[str, Any]) -> dict[str, Any]:
    return flatten({key: value for key, value in config.items() if key not in NOT_VARIED})


def result_of(run: Run, key: str) -> Any:
    """Return what result.json says; the training loss is the mean of the last tenth of the run."""
    if key != "train_loss":
        return run.result.get(key)
    steps, losses = run.series("train/loss")
    last = [loss for step, loss in zip(steps, losses, strict=True) if step > 0.9 * steps[-1]]
    return math.fsum(last) / len(last) if last else None


def _metric(run: Run, metric: str) -> float | None:
    value = result_of(run, metric)
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value) if run.status == "finished" else None


def _setting(rows: Sequence[Row]) -> Setting:
    numbers = [row.metric for row in rows if row.metric is not None]
    diverged = sum(row.run.status == "diverged" for row in rows)
    unfinished = sum(not row.run.result for row in rows)
    return Setting(rows[0].settings, tuple(rows), estimate(numbers), diverged, unfinished)


def _order(settings: Settings) -> tuple[Any, ...]:
    return tuple(_comparable(value) for _, value in settings)


def _comparable(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0, float(value), ""
    return 1, 0.0, str(value)
