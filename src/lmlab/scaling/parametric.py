"""Approach 3 of Hoffmann et al. 2022: the parametric law, fitted to all runs."""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lmlab.errors import UserError
from lmlab.scaling.intervals import Interval, interval
from lmlab.scaling.law import NAMES, Law, stacked
from lmlab.scaling.minimize import Minima, Objective, minimize
from lmlab.scaling.table import Runs

HUBER = 1e-3
"""Residuals of log loss above this count linearly."""
NEEDED = 6
"""Runs for five constants."""
FEW = 16
"""Of fewer runs, random weights held the truth in 63 to 95 % of simulated tables, not in 95 %."""
GRID = (
    (-1.0, -0.5, 0.0, 0.5, 1.0),
    (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
    (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
    (0.0, 0.5, 1.0, 1.5, 2.0),
    (0.0, 0.5, 1.0, 1.5, 2.0),
)
"""Starts of log E, log A, log B, alpha and beta (Hoffmann et al. 2022, section D.2)."""
CHUNK = 256
"""Problems that a thread minimises at once: their arrays fit into a core's cache."""
SAME = 1e-6
"""Starts within this share of the best objective have found the same minimum."""
LARGEST_EXPONENT = 300.0
LARGEST_LOG = 700.0
"""Of a constant that a float can hold; beyond, an exponent is above 30, and not determined."""
LEAST_FLOOR = 1e-3
"""Nats; published floors are above 1."""
LARGEST_POWER = 1.5
"""Published values of alpha and beta are below 0.7."""


@dataclass(frozen=True)
class ParametricFit:
    """The law of a table of runs."""

    law: Law
    objective: float
    """Sum of the Huber losses of the residuals."""
    residuals: Float[np.ndarray, " runs"]
    """Log of the observed loss less that of the law's."""
    trained: int
    """Runs that the rows are of: as many as rows, fewer in a table of training curves."""
    converged: bool
    gradient: float
    """Largest entry of the gradient of the objective / `HUBER`^2, its curvature scaled to 1."""
    starts: int
    agreeing: int
    """Finalists among the starts that reached the same minimum."""
    finalists: int
    samples: Float[np.ndarray, "samples 5"]
    """Constants of the bootstrap, as `NAMES`."""

    @property
    def laws(self) -> Law:
        """The laws of the bootstrap as one, for intervals of what follows from them."""
        return stacked(self.samples)

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each constant that the runs do not determine, and for doubtful ones."""
        notes = [f"{sentence}." for sentence in self.law.flat]
        if not self.converged:
            notes.append("The fit did not converge: its constants are unsure.")
        if self.law.E < LEAST_FLOOR:
            notes.append("E is 0: the losses do not level off yet; do not predict far beyond them.")
        for name, what in (("alpha", "sizes"), ("beta", "numbers of tokens")):
            if getattr(self.law, name) > LARGEST_POWER:
                notes.append(
                    f"{name} is {getattr(self.law, name):.2f}: only the smallest {what} cost loss; "
                    "its constants are not determined."
                )
        return tuple(notes)

    def intervals(self, confidence: float = 0.95) -> dict[str, Interval]:
        """Return the interval of each constant and of the exponents a and b."""
        values = dict(zip(NAMES, self.samples.T, strict=True))
        a, b = self.laws.exponents
        values |= {"a": a, "b": b}
        return {name: interval(v, confidence) for name, v in values.items()}


def fit_parametric(
    runs: Runs, *, samples: int = 1000, seed: int = 0, threads: int | None = None
) -> ParametricFit:
    """Fit E, A, B, alpha and beta by Huber loss on the log of the loss (Besiroglu et al. 2024).

    L-BFGS with the analytic gradient runs from a grid of 4,500 starts. The bootstrap weighs the
    runs at random (Rubin 1981): whole draws with replacement leave out runs that a few constants
    rest on, and their intervals are too wide. Below 16 runs it is parametric: the law's losses with
    normal noise, as in `fit_overtraining`. Rows of one training curve are drawn together. Raises
    UserError for fewer than 6 runs, or runs of one size or one length.
    """
    _require(runs)
    log_n, log_d, log_loss = (np.log(v) for v in (runs.parameters, runs.tokens, runs.loss))
    centre_n, centre_d = log_n.mean(), log_d.mean()
    problem = _Problem(log_n - centre_n, log_d - centre_d, log_loss)
    pool = ThreadPoolExecutor(threads or min(os.cpu_count() or 1, 8))
    with pool:
        starts = _starts(problem, centre_n, centre_d)
        found = _chunked(
            pool, lambda rows: problem.objective(), starts, iterations=30, tolerance=1e-3
        )
        order = np.argsort(np.where(np.isfinite(found.value), found.value, np.inf))[:48]
        near = problem.whitened(found.x[order[0]])
        final = minimize(
            near.objective(), near.variables(found.x[order]), tolerance=1e-7, iterations=300
        )
        best = problem.whitened(near.points(final.x)[np.argmin(final.value)])
        polished = minimize(best.objective(), np.zeros((1, 5)), tolerance=1e-8)
        minimum = best.points(polished.x)
        objective = _bootstrap(best, minimum[0], runs.trained, samples, seed)
        start = np.repeat(polished.x, samples, 0)
        drawn = _chunked(pool, objective, start, iterations=300, tolerance=1e-6)
    agreeing = final.value <= polished.value * (1 + SAME) + 1e-9

    def constants(x: np.ndarray) -> np.ndarray:
        e, a, b, alpha, beta = x.T
        powers = (e, a + alpha * centre_n, b + beta * centre_d)
        return np.stack([*(np.exp(np.minimum(p, LARGEST_LOG)) for p in powers), alpha, beta], 1)

    law = Law(*(float(v) for v in constants(minimum)[0]))
    residuals = log_loss - np.log(law.loss(runs.parameters, runs.tokens))
    if not np.isfinite(residuals).all():
        raise UserError(
            f"{runs.source}: no parametric law fits these runs, the nearest has alpha "
            f"{law.alpha:.2g} and beta {law.beta:.2g}; check the column of the loss"
        )
    return ParametricFit(
        law=law,
        objective=float(polished.value[0]) * HUBER**2,
        residuals=residuals,
        trained=int(runs.trained.max()) + 1,
        converged=bool(polished.converged[0]),
        gradient=float(polished.gradient[0]),
        starts=len(starts),
        agreeing=int(agreeing.sum()),
        finalists=len(order),
        samples=constants(best.points(drawn.x)),
    )


def _require(runs: Runs) -> None:
    if len(runs) < NEEDED:
        raise UserError(
            f"{runs.source} has {len(runs)} runs; the parametric law has five constants and needs "
            f"at least {NEEDED}"
        )
    for what, values in (("sizes", runs.parameters), ("numbers of tokens", runs.tokens)):
        if len(np.unique(values)) < 3:
            raise UserError(
                f"{runs.source} has runs of {len(np.unique(values))} {what}; "
                f"the parametric law needs at least 3"
            )


@dataclass(frozen=True)
class _Problem:
    log_n: Float[np.ndarray, " runs"]
    log_d: Float[np.ndarray, " runs"]
    log_loss: Float[np.ndarray, " runs"]
    origin: Float[np.ndarray, " 5"] = field(default_factory=lambda: np.zeros(5))
    basis: Float[np.ndarray, "5 5"] = field(default_factory=lambda: np.eye(5))
    """Columns are the variables' directions, in log E, log A, log B, alpha and beta."""

    def points(self, variables: Float[np.ndarray, "problems 5"]) -> Float[np.ndarray, "problems 5"]:
        """Return log E, log A, log B, alpha and beta, N and D in units of their means."""
        return self.origin + variables @ self.basis.T

    def variables(self, points: Float[np.ndarray, "problems 5"]) -> Float[np.ndarray, "problems 5"]:
        """Return the variables of points: the inverse of `points`."""
        return np.linalg.solve(self.basis, (points - self.origin).T).T

    def whitened(self, minimum: Float[np.ndarray, " 5"]) -> "_Problem":
        """Return the problem in variables in which its curvature at the minimum is about 1."""
        e, a, b, alpha, beta = minimum
        parts = np.stack(
            [np.full_like(self.log_n, np.exp(e)), np.exp(a - alpha * self.log_n),
             np.exp(b - beta * self.log_d)]
        )  # fmt: skip
        total = parts.sum(0)
        rows = [parts[0], parts[1], parts[2], -parts[1] * self.log_n, -parts[2] * self.log_d]
        jacobian = np.stack(rows, 1) / total[:, None]
        residual = np.abs(np.log(total) - self.log_loss)
        weight = 1 / (HUBER * np.maximum(residual, HUBER))
        curvature, directions = np.linalg.eigh((jacobian * weight[:, None]).T @ jacobian)
        scale = 1 / np.sqrt(np.maximum(curvature, 1e-9 * curvature[-1]))
        return replace(self, origin=minimum, basis=directions * scale)

    def log_losses(self, point: Float[np.ndarray, " 5"]) -> Float[np.ndarray, " runs"]:
        """Return the logarithm of the law's losses."""
        e, a, b, alpha, beta = point
        powers = (np.full_like(self.log_n, e), a - alpha * self.log_n, b - beta * self.log_d)
        return np.log(sum(np.exp(np.minimum(power, LARGEST_EXPONENT)) for power in powers))

    def objective(
        self,
        weights: Float[np.ndarray, "problems runs"] | None = None,
        log_loss: Float[np.ndarray, "problems runs"] | None = None,
    ) -> Objective:
        """Return the sum of Huber losses in units of `HUBER` squared, and its gradient.

        `weights` are those of the runs in each problem, None: all 1; `log_loss` are their losses,
        None: those of the table.
        """

        def evaluate(x: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            e, a, b, alpha, beta = (column[:, None] for column in self.points(x).T)
            by_size = np.exp(np.minimum(a - alpha * self.log_n, LARGEST_EXPONENT))
            by_data = np.exp(np.minimum(b - beta * self.log_d, LARGEST_EXPONENT))
            floor = np.exp(np.minimum(e, LARGEST_EXPONENT))
            total = floor + by_size + by_data
            observed = self.log_loss if log_loss is None else log_loss[index]
            z = (np.log(total) - observed) / HUBER
            inside = np.clip(z, -1, 1)
            huber = inside * (z - 0.5 * inside)
            slope = inside / (HUBER * total)
            if weights is not None:
                huber *= weights[index]
                slope *= weights[index]
            by_size *= slope
            by_data *= slope
            gradient = np.stack(
                [
                    floor[:, 0] * slope.sum(1),
                    by_size.sum(1),
                    by_data.sum(1),
                    -(by_size @ self.log_n),
                    -(by_data @ self.log_d),
                ],
                1,
            )
            return huber.sum(1), gradient @ self.basis

        return evaluate


def _starts(problem: _Problem, centre_n: float, centre_d: float) -> Float[np.ndarray, "starts 5"]:
    grid = np.array(list(itertools.product(*GRID)))
    e, a, b, alpha, beta = grid.T
    return np.stack([e, a - alpha * centre_n, b - beta * centre_d, alpha, beta], 1)


def _bootstrap(
    problem: _Problem,
    minimum: Float[np.ndarray, " 5"],
    run: Int[np.ndarray, " rows"],
    samples: int,
    seed: int,
) -> Callable[[slice], Objective]:
    """Return the objectives of some samples; `run` is the index of each row's run."""
    rng = np.random.default_rng(seed)
    trained = int(run.max()) + 1
    if trained >= FEW:
        weights = trained * rng.dirichlet(np.ones(trained), size=samples)[:, run]
        return lambda rows: problem.objective(weights=weights[rows])
    fitted = problem.log_losses(minimum)
    squares = float(((problem.log_loss - fitted) ** 2).sum()) * trained / len(run)
    deviation = np.sqrt(squares / rng.chisquare(max(trained - 5, 1), size=(samples, 1)))
    log_loss = fitted + (deviation * rng.normal(size=(samples, trained)))[:, run]
    return lambda rows: problem.objective(log_loss=log_loss[rows])


def _chunked(
    pool: ThreadPoolExecutor,
    objective: Callable[[slice], Objective],
    start: Float[np.ndarray, "problems 5"],
    **settings: Any,
) -> Minima:
    def part(first: int) -> Minima:
        rows = slice(first, first + CHUNK)
        return minimize(objective(rows), start[rows], **settings)

    parts = list(pool.map(part, range(0, len(start), CHUNK)))
    return Minima(
        np.concatenate([p.x for p in parts]),
        np.concatenate([p.value for p in parts]),
        np.concatenate([p.gradient for p in parts]),
        np.concatenate([p.converged for p in parts]),
        max(p.iterations for p in parts),
    )
