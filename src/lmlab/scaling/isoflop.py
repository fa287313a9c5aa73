"""Approach 2 of Hoffmann et al. 2022: the best size at each budget, and power laws through them."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from lmlab.errors import UserError
from lmlab.scaling.power_law import PowerLaw, fit_power_law
from lmlab.scaling.table import Runs

Optimum = Literal["argmin", "quadratic", "akima"]
Edge = Literal["smallest", "largest"] | None
OPTIMA: tuple[Optimum, ...] = get_args(Optimum)
NEEDED: dict[Optimum, int] = {"argmin": 3, "quadratic": 4, "akima": 5}
"""Sizes of a budget."""
SAME_BUDGET = 0.1
"""Runs whose FLOPs differ by up to this share belong to one budget."""
LEAST_BEND = 1e-9
"""Of a parabola over all sizes, as a share of the loss; less is rounding."""
GRID = 401
"""Points of an interpolation between which the minimum is found."""


@dataclass(frozen=True)
class Profile:
    """The runs of one budget, and the size of least loss."""

    flops: float
    runs: Runs
    parameters: float
    """Of least loss."""
    loss: float
    """At `parameters`."""
    edge: Edge
    """The optimum lies at this end of the sizes, or beyond: the best size is not known."""
    curve: Float[np.ndarray, "points 2"]
    """Sizes and losses of the interpolation."""
    drawn: Float[np.ndarray, "samples 2"]
    """Sizes and losses of the bootstrap's optima; NaN where a sample has none inside."""

    @property
    def tokens(self) -> float:
        """Tokens at the optimum, in proportion to those of the runs."""
        return self.flops / (self.flops_per_parameter * self.parameters)

    @property
    def flops_per_parameter(self) -> float:
        """FLOPs on a token for each parameter: 6, or what the accounting counts at the optimum."""
        ratios = self.runs.flops / (self.runs.parameters * self.runs.tokens)
        order = np.argsort(self.runs.parameters)
        sizes = np.log(self.runs.parameters[order])
        return float(np.interp(np.log(self.parameters), sizes, ratios[order]))


@dataclass(frozen=True)
class IsoflopFit:
    """The optima of all budgets and the laws N ~ C^a, D ~ C^b."""

    method: Optimum
    profiles: tuple[Profile, ...]
    size_law: PowerLaw
    token_law: PowerLaw

    @property
    def inside(self) -> tuple[Profile, ...]:
        """Budgets whose optimum lies between their sizes: the laws go through these."""
        return tuple(p for p in self.profiles if p.edge is None)

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each budget that is left out."""
        return tuple(
            f"{p.flops:.3g} FLOPs: the optimum is at the {p.edge} of {len(p.runs)} runs' sizes; "
            "it is left out of the laws."
            for p in self.profiles
            if p.edge is not None
        )


def fit_isoflop(
    runs: Runs, method: Optimum = "quadratic", *, samples: int = 1000, seed: int = 0
) -> IsoflopFit:
    """Find each budget's optimum and fit power laws; the bootstrap draws the runs of a budget.

    `argmin` takes the run of least loss, `quadratic` the vertex of a parabola in log N, `akima` the
    minimum of Akima's interpolation. Raises UserError for a budget with too few sizes, and when
    less than two budgets have their optimum inside of their sizes.
    """
    rng = np.random.default_rng(seed)
    profiles = tuple(
        _profile(runs.take(rows), method, samples, rng) for rows in budgets_of(runs.flops)
    )
    inside = [p for p in profiles if p.edge is None]
    if len(inside) < 2:
        at_edge = [f"{p.flops:.3g} ({p.edge} size)" for p in profiles if p.edge is not None]
        why = f"; at the edge of the sizes: {', '.join(at_edge)}" if at_edge else ""
        raise UserError(
            f"{runs.source} has {len(inside)} of {len(profiles)} budgets with an optimum inside of "
            f"their sizes, a power law needs 2{why}; add sizes beyond that edge"
        )
    flops = np.array([p.flops for p in inside])
    ratio = np.array([p.flops_per_parameter for p in inside])
    sizes = np.array([p.parameters for p in inside])
    drawn = np.stack([p.drawn[:, 0] for p in inside], 1)
    size_law = fit_power_law(flops, sizes, drawn)
    token_law = fit_power_law(flops, flops / (ratio * sizes), flops / (ratio * drawn))
    return IsoflopFit(method, profiles, size_law, token_law)


def budgets_of(flops: Float[np.ndarray, " runs"]) -> list[Int[np.ndarray, " some"]]:
    """Return the rows of each budget, ascending: FLOPs within 10 % of the budget's lowest."""
    order = np.argsort(flops, kind="stable")
    groups: list[list[int]] = []
    for row in order:
        if not groups or flops[row] > flops[groups[-1][0]] * (1 + SAME_BUDGET):
            groups.append([])
        groups[-1].append(int(row))
    return [np.sort(np.array(group)) for group in groups]


def _profile(runs: Runs, method: Optimum, samples: int, rng: np.random.Generator) -> Profile:
    flops = float(np.exp(np.log(runs.flops).mean()))
    sizes = np.unique(runs.parameters)
    if len(sizes) < NEEDED[method]:
        names = ", ".join(f"{size:.4g}" for size in sizes)
        raise UserError(
            f"{runs.source}: the budget of {flops:.4g} FLOPs has {len(sizes)} "
            f"{'size' if len(sizes) == 1 else 'sizes'} ({names}), {method} needs {NEEDED[method]}; "
            "add sizes, or fit all runs together with --approach 3"
        )
    log_n = np.log(runs.parameters)
    count = len(runs)
    if method == "quadratic":
        best, drawn = lowest_point(log_n, runs.loss, samples, rng)
    else:
        best = _lowest(log_n, runs.loss, method)
        drawn = np.full((samples, 2), np.nan)
        for i in range(samples):
            rows = rng.integers(count, size=count)
            if len(np.unique(log_n[rows])) >= 2:
                found = _lowest(log_n[rows], runs.loss[rows], method)
                drawn[i] = (found.at, found.value) if found.edge is None else np.nan
    drawn[:, 0] = np.exp(np.clip(drawn[:, 0], -300, 300))  # of parabolas that hardly bend
    curve = np.stack([np.exp(best.curve[:, 0]), best.curve[:, 1]], 1)
    return Profile(flops, runs, float(np.exp(best.at)), best.value, best.edge, curve, drawn)


@dataclass(frozen=True)
class Lowest:
    """The lowest point of a curve through losses."""

    at: float
    value: float
    edge: Edge
    """The curve is lowest at this end of the data, or beyond it."""
    curve: Float[np.ndarray, "points 2"]


def lowest_point(
    x: Float[np.ndarray, " runs"],
    loss: Float[np.ndarray, " runs"],
    samples: int,
    rng: np.random.Generator,
) -> tuple[Lowest, Float[np.ndarray, "samples 2"]]:
    """Return the vertex of the least-squares parabola, and vertices of resampled runs."""
    return _vertex(x, loss), _drawn_vertices(x, loss, samples, rng)


def _edge(value: float, low: float, high: float) -> Edge:
    return "smallest" if value <= low else "largest" if value >= high else None


def _vertex(log_n: Float[np.ndarray, " runs"], loss: Float[np.ndarray, " runs"]) -> Lowest:
    """Return the vertex of the least-squares parabola; without one its lower end."""
    centre = log_n.mean()
    a, b, c = np.polyfit(log_n - centre, loss, 2)
    low, high = log_n.min(), log_n.max()
    grid = np.linspace(low, high, GRID)
    curve = np.stack([grid, np.polyval([a, b, c], grid - centre)], 1)
    if a * (high - low) ** 2 > LEAST_BEND * abs(c):
        best = centre - b / (2 * a)
    else:  # it opens downwards, or all losses are the same
        best = low if curve[0, 1] <= curve[-1, 1] else high
    inside = float(np.clip(best, low, high))
    value = float(np.polyval([a, b, c], inside - centre))
    return Lowest(inside, value, _edge(best, low, high), curve)


def _drawn_vertices(
    log_n: Float[np.ndarray, " runs"],
    loss: Float[np.ndarray, " runs"],
    samples: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "samples 2"]:
    """Return the vertices of parabolas through resampled runs.

    The weights of the runs are drawn from a Dirichlet distribution (Rubin 1981), so that no sample
    lacks a size. Residuals are widened by their lost degrees of freedom.
    """
    count = len(loss)
    x = log_n - log_n.mean()
    design = np.stack([x**2, x, np.ones(count)], 1)
    fitted = design @ np.linalg.lstsq(design, loss, rcond=None)[0]
    leverage = np.einsum("ij,jk,ik->i", design, np.linalg.pinv(design.T @ design), design)
    widened = fitted + (loss - fitted) / np.maximum(1 - leverage, 0.05)
    weights = rng.dirichlet(np.ones(count), size=samples) * count
    normal = np.einsum("sn,ni,nj->sij", weights, design, design)
    a, b, c = np.linalg.solve(normal, np.einsum("sn,ni->si", weights * widened, design)[..., None])[
        ..., 0
    ].T
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = np.where(a > 0, -b / (2 * a), np.nan)
    value = c + vertex * (b + a * vertex)
    return np.stack([vertex + log_n.mean(), value], 1)


def _lowest(
    log_n: Float[np.ndarray, " runs"], loss: Float[np.ndarray, " runs"], method: Optimum
) -> Lowest:
    """Return the lowest point of the runs, or of their interpolation; equal sizes are averaged."""
    sizes, where = np.unique(log_n, return_inverse=True)
    losses = np.bincount(where, loss) / np.bincount(where)
    curve = np.stack([sizes, losses], 1)
    if method == "akima" and len(sizes) > 2:
        from scipy.interpolate import Akima1DInterpolator

        grid = np.linspace(sizes[0], sizes[-1], GRID)
        curve = np.stack([grid, Akima1DInterpolator(sizes, losses)(grid)], 1)
    best = curve[np.argmin(curve[:, 1])]
    return Lowest(float(best[0]), float(best[1]), _edge(best[0], sizes[0], sizes[-1]), curve)
