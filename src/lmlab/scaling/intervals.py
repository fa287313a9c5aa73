"""Intervals of bootstrapped quantities."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Interval:
    """A range that holds the true value with a given confidence."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def interval(samples: Float[np.ndarray, " samples"], confidence: float = 0.95) -> Interval:
    """Return the percentile interval of a bootstrap's values; infinite ones count."""
    finite = np.nan_to_num(samples, nan=np.inf)
    tail = (1 - confidence) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Interval(float(low), float(high))
