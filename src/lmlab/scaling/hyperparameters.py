"""Power laws of the best learning rate and batch size."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from lmlab.errors import UserError
from lmlab.scaling.isoflop import Edge, lowest_point
from lmlab.scaling.power_law import PowerLaw, fit_power_law
from lmlab.scaling.table import Runs

Against = Literal["parameters", "tokens", "flops"]
AGAINST: tuple[Against, ...] = get_args(Against)
NEEDED = 3
"""Values of the hyper-parameter for one size and length of training."""


@dataclass(frozen=True)
class Best:
    """The best value of a hyper-parameter for one size and length of training."""

    x: float
    """What the law is against."""
    value: float
    loss: float
    edge: Edge
    """The best value lies at this end of those tried: it is not known."""
    runs: int


@dataclass(frozen=True)
class HyperparameterFit:
    """value = k x^p, through the best values of all sizes."""

    name: str
    against: Against
    best: tuple[Best, ...]
    law: PowerLaw

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each size that is left out, or whose scatter is not known."""
        left_out = [
            f"{b.x:.3g} {self.against}: the best {self.name} is the {b.edge} that was tried; it is "
            "left out of the law."
            for b in self.best
            if b.edge is not None
        ]
        exact = [
            f"{b.x:.3g} {self.against}: a parabola goes through all {b.runs} runs; the interval "
            "leaves out their scatter."
            for b in self.best
            if b.edge is None and b.runs == NEEDED
        ]
        return (*left_out, *exact)


def fit_hyperparameter(
    runs: Runs,
    name: str,
    against: Against = "parameters",
    *,
    samples: int = 1000,
    seed: int = 0,
) -> HyperparameterFit:
    """Fit the power law of a column's best value, the vertex of a parabola in its logarithm.

    Runs of equal parameters and tokens are compared. Raises UserError when less than two groups
    have 3 values with the best one between them.
    """
    values = runs.column(name)
    if not (np.isfinite(values) & (values > 0)).all():
        raise UserError(f"{runs.source}: column '{name}' has values that are not positive")
    keys = np.round(np.log(np.stack([runs.parameters, runs.tokens], 1)), 2)
    _, group = np.unique(keys, axis=0, return_inverse=True)
    rng = np.random.default_rng(seed)
    found, drawn = [], []
    for number in np.unique(group):
        rows = np.flatnonzero(group == number)
        if len(np.unique(values[rows])) < NEEDED:
            continue
        best, vertices = lowest_point(np.log(values[rows]), runs.loss[rows], samples, rng)
        x = float(np.exp(np.log(getattr(runs, against)[rows]).mean()))
        found.append(Best(x, float(np.exp(best.at)), best.value, best.edge, len(rows)))
        drawn.append(np.exp(np.clip(vertices[:, 0], -300, 300)))  # of parabolas that hardly bend
    inside = [i for i, best in enumerate(found) if best.edge is None]
    if len({round(np.log(found[i].x), 2) for i in inside}) < 2:
        edges = len(found) - len(inside)
        why = f", {edges} have it at the edge" if edges else ""
        raise UserError(
            f"{runs.source}: {len(inside)} of {len(np.unique(group))} sizes and lengths of "
            f"training have at least {NEEDED} values of '{name}' with the best one between them"
            f"{why}; a power law against {against} needs 2"
        )
    x_all: Float[np.ndarray, " groups"] = np.array([found[i].x for i in inside])
    y_all = np.array([found[i].value for i in inside])
    law = fit_power_law(x_all, y_all, np.stack([drawn[i] for i in inside], 1))
    return HyperparameterFit(name, against, tuple(found), law)
