"""Tables of runs: parameters, tokens, FLOPs and loss."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lmlab.errors import UserError
from lmlab.scaling.law import FLOPS_PER_PARAMETER, SIX, Cost

PLAUSIBLE = (0.05, 200)
"""Range of C / 6 N D: outside of it a column is in other units."""
LOSSES = (1e-4, 1e4)
"""Range of a loss in nats."""
RUN = "run"
"""Column that names the run of a row; in a table of training curves it repeats."""
LEFT_OUT = (RUN, "seconds", "tokens_per_second", "n", "mean", "sd", "ci_low", "ci_high")
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

    def where(self, values: Mapping[str, str]) -> "Runs":
        """Return the runs whose columns have these values; raises UserError when there are none."""
        found = self
        for name, value in values.items():
            shown = [shown_value(each) for each in found._column(name)]
            if value not in shown:
                raise UserError(f"{self.source} has no runs with {name}={value}")
            found = found.take([each == value for each in shown])
        return found

    @property
    def trained(self) -> Int[np.ndarray, " runs"]:
        """For each row, the index of the run that made it: rows of one `run` and size share it."""
        names = self.columns.get(RUN)
        if names is None:
            return np.arange(len(self))
        keys = [f"{n:.17g} {name}" for n, name in zip(self.parameters, names, strict=True)]
        return np.unique(keys, return_inverse=True)[1]

    def without_highest(self, count: int) -> "Runs":
        """Return all runs but those of highest loss."""
        if not count:
            return self
        if count >= len(self):
            raise UserError(f"{self.source} has {len(self)} runs; {count} cannot be dropped")
        kept = np.sort(np.argsort(self.loss)[:-count])
        return self.take(kept, f"The {count} runs of highest loss are left out.")

    def _column(self, name: str) -> list[Any]:
        if name not in self.columns:
            raise UserError(
                f"{self.source} has no column '{name}'; its columns: {', '.join(self.columns)}"
            )
        return self.columns[name]

    @property
    def cost(self) -> Cost:
        """FLOPs by size and tokens: 6 N D, or the power of N that is nearest to the table's."""
        log_n, ratio = np.log(self.parameters), self.flops / (self.parameters * self.tokens)
        if np.allclose(ratio, SIX.factor, rtol=1e-3):
            return SIX
        if len(np.unique(self.parameters)) < 2:
            return Cost(float(np.exp(np.log(ratio).mean())))
        slope, offset = np.polyfit(log_n, np.log(ratio), 1)
        return Cost(float(np.exp(offset)), float(1 + slope))

    def column(self, name: str) -> Float[np.ndarray, " runs"]:
        """Return a column as numbers; raises UserError when it is missing or is text."""
        return np.array(
            [as_number(v, name, i, self.source) for i, v in enumerate(self._column(name))]
        )


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
    low, high = LOSSES
    far = np.flatnonzero((known["loss"] < low) | (known["loss"] > high))
    if len(far):
        row = int(far[0])
        raise UserError(
            f"{source}, run {row + 1}: loss is {known['loss'][row]:g}, in nats it is from {low:g} "
            f"to {high:g}; check the units of the columns, or remove the row"
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


def as_number(value: Any, column: str, row: int, source: str) -> float:
    """Return a value of a column; raises UserError for what is no number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{source}, run {row + 1}: {column} is {value!r}, not a number") from None


def shown_value(value: Any) -> str:
    """Return a value as `--where` names it."""
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
    names = list(map(_key, runs.columns.get(RUN, ())))
    left_out = set(LEFT_OUT) - ({RUN} if len(set(names)) < len(names) else set())  # of curves
    own = [k for k in runs.columns if k not in left_out and not _is_loss(runs.columns[k], runs)]
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
