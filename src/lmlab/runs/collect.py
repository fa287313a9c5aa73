"""The results of a sweep: what was varied, and the metric of each setting with its uncertainty."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmlab.errors import UserError
from lmlab.runs.names import short, show
from lmlab.runs.read import RunRecord, find_runs, read_run
from lmlab.runs.statistics import Estimate, estimate
from lmlab.schema import flatten

SHOWN = 4
"""Most keys that a sentence names."""
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
"""Names of metrics in sentences, where they differ from the key."""
HIGHER_IS_BETTER = re.compile(
    r"(^|_)(tokens_per_second|accuracy|margin|reward|format|pass_at_\d+)$"
)
"""Metrics beside a task's own of which more is better; of all others less is."""
Settings = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Row:
    """One run of a sweep."""

    run: RunRecord
    settings: Settings
    """What is varied except the seed, as (key, value)."""
    seed: Any
    metric: float | None
    """None for a run that has no result, or diverged."""
    diverged: bool
    """The run diverged, or it finished with a metric that is not finite."""


@dataclass(frozen=True)
class Setting:
    """The runs that differ in their seed only."""

    settings: Settings
    rows: tuple[Row, ...]
    estimate: Estimate
    """Over the runs that finished with a finite metric."""
    diverged: int
    unfinished: int

    @property
    def values(self) -> list[float]:
        """The metric of each run that has one."""
        return [row.metric for row in self.rows if row.metric is not None]

    @property
    def by_seed(self) -> dict[str, float]:
        """The metric of each run that has one, by its seed."""
        return {show(row.seed): row.metric for row in self.rows if row.metric is not None}

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
    """Runs left out because another one has the same settings and seed."""
    maximize: bool = False
    """The largest value of the metric is the best; False: the smallest."""
    together: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Axes, each with the keys that change together with it, one to one."""

    @property
    def metric_name(self) -> str:
        """The metric in words."""
        return METRICS.get(self.metric, self.metric.replace("_", " "))

    @property
    def sign(self) -> int:
        """Factor of the metric that makes the lowest value the best."""
        return -1 if self.maximize else 1

    @property
    def note(self) -> str:
        """What is left out, in a sentence; nothing when all runs are included."""
        if not self.copies:
            return ""
        runs = "1 run is" if self.copies == 1 else f"{self.copies} runs are"
        return f"{runs} left out: the newest with a result counts of each setting and seed."

    @property
    def confounded(self) -> str:
        """Which keys are not separated from an axis, in a sentence; nothing when all are."""
        sentences = []
        for axis, keys in self.together:
            names = list(keys if len(keys) <= SHOWN else keys[: SHOWN - 1])
            if len(keys) > SHOWN:
                names.append(f"{len(keys) - SHOWN + 1} more keys")
            joined = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
            sentences.append(f"{axis} changed only together with {joined}.")
        return " ".join(sentences)


def collect(directory: Path, metric: str | None = None) -> Sweep:
    """Read the runs below a folder, by a key of result.json or by default by that of their task.

    Raises UserError when there are none, or when none has such a result.
    """
    runs = [read_run(path) for path in find_runs(directory)]
    if not runs:
        raise UserError(f"there are no runs in {directory}; name a sweep's folder")
    metric, maximize = _judged_by(runs, metric)
    varied = [_varied(run.config) for run in runs]
    axes = find_axes(varied)
    rows = []
    for run, values in zip(runs, varied, strict=True):
        settings = tuple((axis, values.get(axis)) for axis in axes)
        value = _metric(run, metric)
        lost = run.status == "finished" and value is None and metric in run.result
        diverged = run.status == "diverged" or lost
        rows.append(Row(run, settings, values.get(SEED), value, diverged))
    rows.sort(key=lambda row: (bool(row.run.result), str(row.run.environment.get("started", ""))))
    newest = {json.dumps([row.settings, row.seed], default=str): row for row in rows}
    kept = sorted(newest.values(), key=lambda row: (_order(row.settings), _comparable(row.seed)))
    groups: dict[str, list[Row]] = {}
    for row in kept:
        groups.setdefault(json.dumps(row.settings, default=str), []).append(row)
    settings_ = tuple(_setting(group) for group in groups.values())
    copies, together = len(rows) - len(kept), find_together(varied, axes)
    return Sweep(directory, metric, axes, tuple(kept), settings_, copies, maximize, together)


def _judged_by(runs: Sequence[RunRecord], metric: str | None) -> tuple[str, bool]:
    """Return the key of result.json that the runs are compared by, and whether more is better."""
    results = [run.result for run in runs if "metric" in run.result]
    own = {str(result["metric"]): bool(result.get("maximize")) for result in results}
    chosen = metric or next(iter(own), "val_loss")
    numbers = {k for run in runs for k, v in run.result.items() if type(v) in (int, float)}
    known = [*RESULTS, *sorted(numbers.difference(RESULTS))]
    if chosen not in known:
        raise UserError(f"'{chosen}' is not one of {', '.join(known)}")
    maximize = bool(HIGHER_IS_BETTER.search(chosen))
    return chosen, own.get(chosen.removeprefix("best_"), maximize)


def find_axes(configs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the keys that differ between runs, without those that depend on another one.

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


def find_together(
    configs: Sequence[Mapping[str, Any]], axes: Sequence[str]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the axes with which other keys change one to one, to values of their own.

    A key with the same values as another one, and what a choice brings along, is left out.
    """
    keys = dict.fromkeys(key for config in configs for key in config if key not in (SEED, *axes))
    found = []
    for axis in axes:
        column = [json.dumps(config.get(axis)) for config in configs]
        others: dict[tuple[str, ...], str] = {}
        for key in keys:
            other = tuple(json.dumps(config.get(key)) for config in configs)
            one_to_one = _determines(column, other) and _determines(other, column)
            if one_to_one and list(other) != column and not _belongs(key, axis):
                others.setdefault(other, key)
        if others:
            found.append((axis, tuple(others.values())))
    return tuple(found)


def _belongs(key: str, kind: str) -> bool:
    return kind.endswith(".kind") and key.startswith(kind.removesuffix("kind"))


def _determines(first: Sequence[str], second: Sequence[str]) -> bool:
    return len(set(zip(first, second, strict=True))) == len(set(first))


def describe(settings: Settings) -> str:
    """Return `lr=0.001, ffn=glu`; `all runs` for a sweep of seeds only."""
    return ", ".join(f"{short(key)}={show(value)}" for key, value in settings) or "all runs"


def _varied(config: Mapping[str, Any]) -> dict[str, Any]:
    return flatten({key: value for key, value in config.items() if key not in NOT_VARIED})


def result_of(run: RunRecord, key: str) -> Any:
    """Return a value of result.json; the training loss is the mean of the last tenth of the run."""
    if key != "train_loss":
        return run.result.get(key)
    steps, losses = run.series("train/loss")
    last = [loss for step, loss in zip(steps, losses, strict=True) if step > 0.9 * steps[-1]]
    return math.fsum(last) / len(last) if last else None


def _metric(run: RunRecord, metric: str) -> float | None:
    value = result_of(run, metric)
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value) if run.status == "finished" else None


def _setting(rows: Sequence[Row]) -> Setting:
    numbers = [row.metric for row in rows if row.metric is not None]
    diverged = sum(row.diverged for row in rows)
    unfinished = sum(not row.run.result for row in rows)
    return Setting(rows[0].settings, tuple(rows), estimate(numbers), diverged, unfinished)


def _order(settings: Settings) -> tuple[Any, ...]:
    return tuple(_comparable(value) for _, value in settings)


def _comparable(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0, float(value), ""
    return 1, 0.0, str(value)
