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
    """Return the percentile interval of a bootstrap's values; infinite ones count.

    Values that are NaN may lie anywhere: they count at both ends.
    """
    if not len(samples):
        return Interval(-np.inf, np.inf)
    tail = (1 - confidence) / 2
    # of the two values around a quantile the outer one: between infinite ones there is no mean
    low = np.quantile(np.where(np.isnan(samples), -np.inf, samples), tail, method="lower")
    high = np.quantile(np.where(np.isnan(samples), np.inf, samples), 1 - tail, method="higher")
    return Interval(float(low), float(high))
