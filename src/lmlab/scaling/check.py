"""Runs that were not fitted, against what a law predicts for them."""

from dataclasses import dataclass

import numpy as np

from lmlab.scaling.intervals import Interval, interval
from lmlab.scaling.law import NAMES
from lmlab.scaling.parametric import ParametricFit
from lmlab.scaling.table import Runs


@dataclass(frozen=True)
class Check:
    """The loss of a run and its prediction."""

    parameters: float
    tokens: float
    flops: float
    loss: float
    predicted: float
    interval: Interval
    """95 %, of one run: the law's uncertainty and the scatter of the runs around it."""

    @property
    def error(self) -> float:
        """Share by which the observed loss is above the prediction."""
        return self.loss / self.predicted - 1


def check_runs(fit: ParametricFit, runs: Runs, *, seed: int = 0) -> tuple[Check, ...]:
    """Return predictions for the sizes and tokens of these runs, beside their losses.

    A run scatters by Student's t, of the residuals with the degrees of freedom that their runs have
    left.
    """
    deviation = float(np.sqrt((fit.residuals**2).sum() / (len(fit.residuals) - len(NAMES))))
    free = max(fit.trained - len(NAMES), 1)
    rng = np.random.default_rng(seed)
    checks = []
    for n, d, c, loss in zip(runs.parameters, runs.tokens, runs.flops, runs.loss, strict=True):
        drawn = fit.laws.loss(n, d)
        scatter = np.exp(deviation * rng.standard_t(free, size=len(drawn)))
        predicted = float(fit.law.loss(n, d))
        held = interval(drawn * scatter)
        checks.append(Check(float(n), float(d), float(c), float(loss), predicted, held))
    return tuple(checks)


def check_lines(checks: tuple[Check, ...]) -> list[str]:
    """Return a line for each run: observed, predicted, and whether the interval holds it."""
    return [
        f"{c.parameters:,.0f} parameters, {c.tokens:,.0f} tokens, {c.flops:.4g} FLOPs: "
        f"loss {c.loss:.4f}, predicted {c.predicted:.4f} ({c.interval.low:.4f} to "
        f"{c.interval.high:.4f}), {100 * c.error:+.2f} %, "
        f"{'inside' if c.loss in c.interval else 'outside'}"
        for c in checks
    ]
