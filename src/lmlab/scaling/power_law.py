"""Power laws y = k x^p through points, in logarithms."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from lmlab.scaling.intervals import Interval, interval


@dataclass(frozen=True)
class PowerLaw:
    """y = factor * x^exponent, with the lines of a bootstrap."""

    exponent: float
    log_factor: float
    samples: Float[np.ndarray, "samples 2"]
    """Exponents and logs of factors."""

    def __call__(self, x: Any) -> Any:
        """Return y."""
        return np.exp(self.log_factor + self.exponent * np.log(x))

    @property
    def exponent_interval(self) -> Interval:
        """The 95 % interval of the exponent."""
        return interval(self.samples[:, 0])

    def interval(self, x: float, confidence: float = 0.95) -> Interval:
        """Return the interval of y."""
        return interval(self.drawn(x), confidence)

    def drawn(self, x: float) -> Float[np.ndarray, " samples"]:
        """Return y for each line of the bootstrap."""
        with np.errstate(over="ignore"):  # of optima that are not determined
            return np.exp(self.samples[:, 1] + self.samples[:, 0] * np.log(x))


def fit_power_law(
    x: Float[np.ndarray, " points"],
    y: Float[np.ndarray, " points"],
    drawn: Float[np.ndarray, "samples points"],
) -> PowerLaw:
    """Fit by least squares in logarithms; `drawn` has the bootstrap's values of y.

    Points that a sample of the bootstrap lacks are NaN there.
    """
    log_x = np.log(x)
    exponent, log_factor = np.polyfit(log_x, np.log(y), 1)
    log_y = np.log(drawn)
    known = np.isfinite(log_y)
    count = np.maximum(known.sum(1), 1)
    centre = (known * log_x).sum(1) / count
    offset = np.where(known, log_x - centre[:, None], 0)
    spread = (offset**2).sum(1)
    usable = (known.sum(1) >= 2) & (spread > 1e-12)
    values = np.where(known, log_y, 0)
    slopes = (offset * values).sum(1) / np.where(usable, spread, 1)
    factors = values.sum(1) / count - slopes * centre
    samples = np.stack([slopes, factors], 1)[usable]
    return PowerLaw(float(exponent), float(log_factor), samples)
