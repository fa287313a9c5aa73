"""The scaling law of over-trained models (Gadre et al. 2024)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from lmlab.errors import UserError
from lmlab.scaling.intervals import Interval, interval
from lmlab.scaling.law import FLOPS_PER_PARAMETER, LEAST_EXPONENT
from lmlab.scaling.table import Runs

NEEDED = 5
"""Runs for four constants."""
STARTS = (0.05, 0.1, 0.15, 0.2, 0.3)
"""Of the exponent."""
LEAST_FACTOR = 1e-6
"""Of a and b, in nats; published ones are above 100."""
CONSTANTS = ("E", "a", "b", "eta")


@dataclass(frozen=True)
class OvertrainingLaw:
    """L = E + (a M^eta + b M^-eta) C^-eta, with M = D / N and C = 6 N D (equation 4)."""

    E: Any
    a: Any
    b: Any
    eta: Any

    def loss(self, parameters: Any, tokens: Any) -> Any:
        """Return the loss in nats of a run."""
        multiplier = tokens / parameters
        flops = FLOPS_PER_PARAMETER * parameters * tokens
        ratio = multiplier**self.eta
        return self.E + (self.a * ratio + self.b / ratio) * flops**-self.eta


@dataclass(frozen=True)
class OvertrainingFit:
    """The law of a table of runs."""

    law: OvertrainingLaw
    residuals: Float[np.ndarray, " runs"]
    """Observed loss less that of the law, in nats."""
    samples: Float[np.ndarray, "samples 4"]
    """Constants of the bootstrap, as `CONSTANTS`."""

    @property
    def objective(self) -> float:
        """Sum of the squared residuals."""
        return float((self.residuals**2).sum())

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each constant by which the law cannot be extrapolated."""
        notes = []
        if not (self.law.eta > LEAST_EXPONENT and max(self.law.a, self.law.b) > LEAST_FACTOR):
            notes.append(
                f"eta is {self.law.eta:.2g}, a {self.law.a:.2g} and b {self.law.b:.2g}: the loss "
                "does not fall with the FLOPs."
            )
        if not self.law.E > 0:
            notes.append(f"E is {self.law.E:.2g}: the loss of large runs is below 0.")
        return tuple(notes)

    @property
    def laws(self) -> OvertrainingLaw:
        """The laws of the bootstrap as one."""
        return OvertrainingLaw(*self.samples.T)

    def intervals(self, confidence: float = 0.95) -> dict[str, Interval]:
        """Return the interval of each constant."""
        columns = zip(CONSTANTS, self.samples.T, strict=True)
        return {name: interval(values, confidence) for name, values in columns}


def fit_overtraining(runs: Runs, *, samples: int = 200, seed: int = 0) -> OvertrainingFit:
    """Fit the four constants by least squares on the loss.

    A parametric bootstrap: each sample is a fit to the law's losses with normal noise. Its variance
    is the residuals' sum of squares over a draw of chi-squared with runs - 4 degrees of freedom, as
    little is known of it from few runs. Raises UserError for fewer than 5 runs, or runs of one
    ratio of tokens to parameters.
    """
    ratios = np.unique(np.round(np.log(runs.tokens / runs.parameters), 2))
    if len(runs) < NEEDED or len(ratios) < 2:
        raise UserError(
            f"{runs.source} has {len(runs)} runs with {len(ratios)} ratios of tokens to "
            f"parameters; the law of over-training needs at least {NEEDED} runs with 2 ratios"
        )
    starts = [_start(runs, eta) for eta in STARTS]
    best = min((_solve(runs, runs.loss, x) for x in starts), key=lambda found: found[1])[0]
    law = _law(best)
    fitted = law.loss(runs.parameters, runs.tokens)
    residuals = runs.loss - fitted
    rng = np.random.default_rng(seed)
    free = len(runs) - len(CONSTANTS)
    deviations = np.sqrt((residuals**2).sum() / rng.chisquare(free, samples))
    drawn = []
    for deviation in deviations:
        noisy = fitted + deviation * rng.normal(size=len(runs))
        law_i = _law(_solve(runs, noisy, best)[0])
        drawn.append([law_i.E, law_i.a, law_i.b, law_i.eta])
    return OvertrainingFit(law, residuals, np.array(drawn))


def _law(x: Float[np.ndarray, " 4"]) -> OvertrainingLaw:
    a, b = np.exp(np.minimum(x[1:3], 700))  # the largest that a float can hold
    return OvertrainingLaw(float(x[0]), float(a), float(b), float(x[3]))


def _start(runs: Runs, eta: float) -> Float[np.ndarray, " 4"]:
    """Return E and the logs of a and b that fit best for an exponent: they are linear in it."""
    from scipy.optimize import nnls

    ratio = (runs.tokens / runs.parameters) ** eta
    shrink = (FLOPS_PER_PARAMETER * runs.parameters * runs.tokens) ** -eta
    design = np.stack([np.ones(len(runs)), ratio * shrink, shrink / ratio], 1)
    e, a, b = nnls(design, runs.loss)[0]
    return np.array([e, np.log(max(a, 1e-3)), np.log(max(b, 1e-3)), eta])


def _solve(
    runs: Runs, loss: Float[np.ndarray, " runs"], start: Float[np.ndarray, " 4"]
) -> tuple[Float[np.ndarray, " 4"], float]:
    from scipy.optimize import least_squares

    log_n, log_d = np.log(runs.parameters), np.log(runs.tokens)
    log_c = np.log(FLOPS_PER_PARAMETER) + log_n + log_d

    def parts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        power = x[3] * np.stack([log_d - log_n, log_n - log_d]) - x[3] * log_c
        first, second = np.exp(np.clip(x[1:3, None] + power, -300, 300))
        return first, second

    def residual(x: np.ndarray) -> np.ndarray:
        first, second = parts(x)
        return x[0] + first + second - loss

    def jacobian(x: np.ndarray) -> np.ndarray:
        first, second = parts(x)
        by_eta = first * (log_d - log_n - log_c) + second * (log_n - log_d - log_c)
        return np.stack([np.ones(len(loss)), first, second, by_eta], 1)

    settings = {"x_scale": "jac", "ftol": 1e-14, "xtol": 1e-14, "gtol": 1e-14, "max_nfev": 2000}
    with np.errstate(all="ignore"):  # steps that are too long are taken back
        found = least_squares(residual, start, jacobian, **settings)
    return found.x, float(found.cost)
