"""What the page and the picture of a table show."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from lmlab.errors import UserError
from lmlab.scaling.check import Check, check_runs
from lmlab.scaling.intervals import Interval, interval
from lmlab.scaling.isoflop import IsoflopFit, budgets_of, fit_isoflop
from lmlab.scaling.parametric import ParametricFit, fit_parametric
from lmlab.scaling.table import Runs

BEYOND = 10
"""The frontier is drawn to this multiple of the largest run, or to the target."""
POINTS = 60
MOST_BUDGETS = 12
"""IsoFLOP curves of the law; of more budgets some are drawn."""


@dataclass(frozen=True)
class Band:
    """A line with its 95 % interval."""

    x: Float[np.ndarray, " points"]
    y: Float[np.ndarray, " points"]
    low: Float[np.ndarray, " points"]
    high: Float[np.ndarray, " points"]


@dataclass(frozen=True)
class Report:
    """The fits of a table, and the lines through them."""

    runs: Runs
    parametric: ParametricFit
    isoflop: IsoflopFit | None
    why_no_isoflop: str
    budgets: tuple[float, ...]
    """FLOPs of the curves of the law."""
    frontier: Band
    """Best loss against FLOPs."""
    sizes: Band
    """Best size against FLOPs."""
    isoflop_sizes: Band | None
    target: float
    predicted: dict[str, tuple[float, Interval]]
    """Loss, parameters and tokens of the target."""
    checks: tuple[Check, ...]
    """Of runs that are not fitted."""

    def law_curve(self, flops: float) -> Float[np.ndarray, "points 2"]:
        """Return sizes and losses of the law at a number of FLOPs."""
        law = self.parametric.law
        near = self.runs.parameters[
            (self.runs.flops > flops / 1.5) & (self.runs.flops < flops * 1.5)
        ]
        best = float(law.optimum(flops, self.runs.cost)[0])
        low = min(best / 4, near.min() if len(near) else best)
        high = max(best * 4, near.max() if len(near) else best)
        sizes = np.geomspace(low, high, POINTS)
        return np.stack([sizes, law.loss(sizes, self.runs.cost.tokens(sizes, flops))], 1)


def make_report(
    runs: Runs,
    *,
    samples: int = 1000,
    seed: int = 0,
    target: float | None = None,
    others: Runs | None = None,
) -> Report:
    """Fit approach 3, and approach 2 where the table has budgets, and return both with lines.

    `others` are not fitted but compared with their predictions.
    """
    parametric = fit_parametric(runs, samples=samples, seed=seed)
    isoflop, why = None, ""
    try:
        isoflop = fit_isoflop(runs, samples=samples, seed=seed)
    except UserError as error:
        why = str(error)
    aim = target or BEYOND * float(runs.flops.max())
    flops = np.geomspace(runs.flops.min(), max(aim, runs.flops.max()), POINTS)
    law, laws, cost = parametric.law, parametric.laws, runs.cost
    drawn = [laws.optimum(c, cost)[0] for c in flops]
    best = [laws.best_loss(c, cost) for c in flops]
    isoflop_sizes = None
    if isoflop is not None:
        lines = [isoflop.size_law.drawn(c) for c in flops]
        isoflop_sizes = _band(flops, isoflop.size_law(flops), lines)
    size, tokens = law.optimum(aim, cost)
    return Report(
        runs=runs,
        parametric=parametric,
        isoflop=isoflop,
        why_no_isoflop=why,
        budgets=_some(
            [float(np.exp(np.log(runs.flops[r]).mean())) for r in budgets_of(runs.flops)]
        ),
        frontier=_band(flops, law.best_loss(flops, cost), best),
        sizes=_band(flops, law.optimum(flops, cost)[0], drawn),
        isoflop_sizes=isoflop_sizes,
        target=aim,
        predicted={
            "loss": (float(law.best_loss(aim, cost)), interval(laws.best_loss(aim, cost))),
            "parameters": (float(size), interval(laws.optimum(aim, cost)[0])),
            "tokens": (float(tokens), interval(laws.optimum(aim, cost)[1])),
        },
        checks=check_runs(parametric, others, seed=seed) if others else (),
    )


def _band(x: np.ndarray, y: Any, drawn: list[np.ndarray]) -> Band:
    ranges = [interval(values) for values in drawn]
    return Band(
        x, np.asarray(y), np.array([r.low for r in ranges]), np.array([r.high for r in ranges])
    )


def _some(values: list[float]) -> tuple[float, ...]:
    every = -(-len(values) // MOST_BUDGETS)
    return tuple(values[::-1][::every][::-1])
