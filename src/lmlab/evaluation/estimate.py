"""Means over documents or questions, with 95 % confidence intervals."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over sampled units; with a single unit its error is unknown."""

    value: float
    error: float | None
    """Standard error."""
    half_width: float | None
    """Half of the 95 % confidence interval (Student's t)."""

    @property
    def low(self) -> float | None:
        """Lower end of the interval."""
        return None if self.half_width is None else self.value - self.half_width

    @property
    def high(self) -> float | None:
        """Upper end of the interval."""
        return None if self.half_width is None else self.value + self.half_width


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def ratio(sums: Float[np.ndarray, "units"], weights: Shaped[np.ndarray, "units"]) -> Estimate:
    """Return `sum(sums) / sum(weights)` with the standard error of units drawn at random.

    The error is that of the linearised ratio (Cochran 1977, section 6.3), and equals the
    cluster-robust one with a unit as the cluster (Miller 2024, arXiv:2411.00640). With equal
    weights it is the standard error of a mean.
    """
    n, total = len(sums), float(np.sum(weights))
    value = math.fsum(sums) / total
    if n < 2:
        return Estimate(value, None, None)
    from scipy.stats import t

    residuals = sums - value * weights
    error = math.sqrt(n / (n - 1) * float(residuals @ residuals)) / total
    return Estimate(value, error, float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error)
