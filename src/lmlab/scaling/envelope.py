"""Approach 1 of Hoffmann et al. 2022: the lowest of all training curves at each number of FLOPs."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from lmlab.errors import UserError
from lmlab.scaling.power_law import PowerLaw, fit_power_law
from lmlab.scaling.table import RUN, Runs

POINTS = 200
"""Numbers of FLOPs at which the curves are compared, logarithmically spaced."""
FEW_SIZES = 4
"""Through fewer, the lines of the bootstrap hardly differ."""


@dataclass(frozen=True)
class Curve:
    """The losses of a run while it trained, by ascending FLOPs."""

    parameters: float
    flops: Float[np.ndarray, " points"]
    tokens: Float[np.ndarray, " points"]
    loss: Float[np.ndarray, " points"]


@dataclass(frozen=True)
class EnvelopeFit:
    """The lower envelope of training curves and the laws N ~ C^a, D ~ C^b through it."""

    curves: tuple[Curve, ...]
    flops: Float[np.ndarray, " points"]
    loss: Float[np.ndarray, " points"]
    parameters: Float[np.ndarray, " points"]
    """Size of the run that is lowest at these FLOPs."""
    inside: int
    """Points whose lowest run is neither of the smallest nor of the largest size."""
    sizes_inside: int
    """Different sizes of the lowest runs at these points: the laws go through them."""
    size_law: PowerLaw
    token_law: PowerLaw

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence when the laws go through few sizes."""
        if self.sizes_inside >= FEW_SIZES:
            return ()
        return (
            f"The laws go through {self.sizes_inside} sizes: their intervals are too narrow; add "
            "sizes between the smallest and the largest.",
        )


def curves_of(runs: Runs) -> tuple[Curve, ...]:
    """Return the curves of a table that has a row for each evaluation of a run.

    Without a column `run`, rows of one size are one curve.
    """
    keys = runs.columns.get(RUN) or [f"{n:.17g}" for n in runs.parameters]
    groups: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(str(key), []).append(row)
    curves = []
    for rows in groups.values():
        order = np.array(rows)[np.argsort(runs.flops[rows], kind="stable")]
        part = runs.take(order)
        curves.append(Curve(float(part.parameters[0]), part.flops, part.tokens, part.loss))
    return tuple(curves)


def fit_envelope(runs: Runs, *, samples: int = 1000, seed: int = 0) -> EnvelopeFit:
    """Fit power laws through the envelope; the bootstrap draws curves with replacement.

    Raises UserError for less than 3 sizes, curves of one point, or an envelope whose lowest run is
    always of the smallest or the largest size.
    """
    curves = curves_of(runs)
    sizes = sorted({curve.parameters for curve in curves})
    short = sum(len(curve.loss) < 2 for curve in curves)
    if len(sizes) < 3 or short:
        why = f"{short} of {len(curves)} curves have one point" if short else f"{len(sizes)} sizes"
        raise UserError(
            f"{runs.source} has {why}; the envelope needs training curves, a row for each "
            f"evaluation and a column '{RUN}', of at least 3 sizes"
        )
    first = min(curve.flops[0] for curve in curves)
    last = max(curve.flops[-1] for curve in curves)
    flops = np.geomspace(first, last, POINTS)
    losses = np.stack([_at(curve.loss, curve, flops) for curve in curves])
    tokens = np.stack([_at(curve.tokens, curve, flops) for curve in curves])
    size = np.array([curve.parameters for curve in curves])
    everything = np.arange(len(curves))
    at, lowest, inside = _winners(losses, size, everything)
    if inside.sum() < 2 or len(np.unique(size[lowest[inside]])) < 2:
        raise UserError(
            f"{runs.source}: the lowest curve is that of the smallest or the largest size nearly "
            "everywhere; add sizes on both sides, or train them longer"
        )
    x = flops[at[inside]]
    chosen = lowest[inside], at[inside]
    drawn_n, drawn_d = (np.full((samples, len(x)), np.nan) for _ in range(2))
    rng = np.random.default_rng(seed)
    place = {int(point): i for i, point in enumerate(at[inside])}
    for i in range(samples):
        rows = np.unique(rng.integers(len(curves), size=len(curves)))
        points, winner, within = _winners(losses, size, rows)
        for point, run in zip(points[within], winner[within], strict=True):
            if int(point) in place:
                drawn_n[i, place[int(point)]] = size[run]
                drawn_d[i, place[int(point)]] = tokens[run, point]
    return EnvelopeFit(
        curves=curves,
        flops=flops[at],
        loss=losses[lowest, at],
        parameters=size[lowest],
        inside=int(inside.sum()),
        sizes_inside=len(np.unique(size[lowest[inside]])),
        size_law=fit_power_law(x, size[chosen[0]], drawn_n),
        token_law=fit_power_law(x, tokens[chosen], drawn_d),
    )


def _at(
    values: Float[np.ndarray, " points"], curve: Curve, flops: Float[np.ndarray, " grid"]
) -> Float[np.ndarray, " grid"]:
    """Return a curve's values at these FLOPs, NaN outside of it; straight between logarithms."""
    found = np.interp(np.log(flops), np.log(curve.flops), np.log(values), np.nan, np.nan)
    return np.exp(found)


def _winners(
    losses: Float[np.ndarray, "curves grid"],
    size: Float[np.ndarray, " curves"],
    rows: Int[np.ndarray, " some"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the points that a curve reaches, the lowest curve there, and whether it is inside.

    Inside: smaller and larger sizes were trained to this number of FLOPs, and are worse.
    """
    part = losses[rows]
    at = np.flatnonzero(np.isfinite(part).any(0))
    part = part[:, at]
    lowest = rows[np.nanargmin(part, 0)]
    present = np.isfinite(part)
    of = size[rows][:, None]
    smallest = np.where(present, of, np.inf).min(0)
    largest = np.where(present, of, -np.inf).max(0)
    return at, lowest, (size[lowest] > smallest) & (size[lowest] < largest)
