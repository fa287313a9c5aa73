"""What a few seeds allow to say: a mean with its uncertainty, and whether two settings differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds; without at least two of them nothing is known about its uncertainty."""

    n: int
    mean: float
    sd: float | None
    """Sample standard deviation, n - 1 in the denominator."""
    low: float | None
    """Lower end of the 95 % confidence interval of the mean (Student's t)."""
    high: float | None

    def __str__(self) -> str:
        if self.n == 0:
            return "–"
        if self.sd is None or self.high is None:
            return f"{self.mean:.4f}"
        return f"{self.mean:.4f} ± {self.high - self.mean:.4f}"


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean, standard deviation and 95 % confidence interval of the mean."""
    n = len(values)
    if n == 0:
        return Estimate(0, math.nan, None, None, None)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(1, mean, None, None, None)
    from scipy.stats import t

    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
    return Estimate(n, mean, sd, mean - half, mean + half)


@dataclass(frozen=True)
class Difference:
    """How much lower one mean is than another."""

    value: float
    low: float | None
    """Lower end of its 95 % confidence interval (Welch)."""
    high: float | None
    p: float | None
    """Of Welch's t-test, two-sided, that there is none; None where a setting has one seed only."""


def welch(better: Sequence[float], worse: Sequence[float]) -> Difference:
    """Compare two settings by Welch's t-test, which lets them have different variances."""
    value = estimate(worse).mean - estimate(better).mean
    if min(len(better), len(worse)) < 2:
        return Difference(value, None, None, None)
    if len(set(better)) == len(set(worse)) == 1:  # no noise at all: what differs, differs
        return Difference(value, value, value, 1.0 if value == 0 else 0.0)
    from scipy.stats import ttest_ind

    test = ttest_ind(worse, better, equal_var=False)
    interval = test.confidence_interval(CONFIDENCE)
    return Difference(value, float(interval.low), float(interval.high), float(test.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for there being several (Holm 1979), in the same order."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
