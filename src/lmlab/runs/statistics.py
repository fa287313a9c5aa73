"""Means over seeds with their uncertainty, and tests of whether settings of a sweep differ."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
SIGNIFICANT = 0.05
NOISY = 0.01
"""Level of the F-test by which a setting's variance is excluded from the pooled one."""
FEWEST_DEGREES = 2
"""Degrees of freedom that the analysis paired by seed must leave; fewer have no power."""

Array = NDArray[np.float64]
Values = Mapping[object, float]
"""The metric of one setting by seed."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds; its uncertainty is unknown with fewer than two of them."""

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
    """A difference of two means and its test."""

    value: float
    low: float | None
    """Lower end of its 95 % confidence interval, simultaneous for all pairs of settings."""
    high: float | None
    p: float | None
    """Two-sided, adjusted for all pairs of settings; None without any repeated seed."""


@dataclass(frozen=True)
class Noise:
    """The deviation between seeds that settings are compared by."""

    deviation: float
    """Pooled standard deviation of a single run, in the metric's unit."""
    degrees: int
    """Degrees of freedom of its estimate."""
    paired: bool
    """Whether what the settings have in common at a seed is subtracted first."""
    excluded: frozenset[int]
    """Indices of the settings with a larger deviation, which are compared by their own."""


class Comparisons:
    """Comparisons between the settings of a sweep, by one pooled deviation.

    Runs with the same seed see the same batches, so `metric = setting + seed + noise` is fitted by
    least squares and its residuals give the deviation (randomised block design; with two settings
    this is the paired t-test). Where the seeds do not match, or too few of them leave degrees of
    freedom, it is `metric = setting + noise` (with two settings the t-test with pooled variance).
    The choice depends on the seeds alone, never on the results.

    p-values and intervals are those of Tukey and Kramer for all pairs of settings, so they stay
    valid when the best setting is chosen by the same results. A setting whose own variance is
    larger than the pooled one (F-test at 1 %, as close to divergence) is excluded from the pool and
    compared by its own (Games and Howell). Tukey 1949; Kramer 1956; Games and Howell 1976.
    """

    def __init__(self, settings: Sequence[Values]) -> None:
        self._settings = settings
        self.noise = _noise(settings)
        self.levels = self._fitted_means()
        """Mean of each setting; paired, over all seeds, also those that the setting lacks."""

    def difference(self, first: int, second: int) -> Difference:
        """Return how much larger the level of the second setting is than that of the first."""
        noise = self.noise
        value = self.levels[second] - self.levels[first]
        if noise is None:
            return Difference(value, None, None, None)
        if noise.excluded.intersection((first, second)):
            error, degrees = self._own_error(first, second)
        else:
            error = noise.deviation * math.sqrt(self._share(first, second))
            degrees = float(noise.degrees)
        if error == 0:  # no noise at all
            return Difference(value, value, value, 1.0 if value == 0 else 0.0)
        half = critical_range(len(self._settings), degrees) / math.sqrt(2) * error
        p = _range_p(math.sqrt(2) * abs(value) / error, len(self._settings), degrees)
        return Difference(value, value - half, value + half, p)

    def _pooled(self) -> list[Values]:
        """Return the settings without the values of those that are compared by their own."""
        excluded = frozenset[int]() if self.noise is None else self.noise.excluded
        return [{} if i in excluded else setting for i, setting in enumerate(self._settings)]

    def _fitted_means(self) -> list[float]:
        """Return least-squares means, for a setting with all seeds its plain mean."""
        levels = [_mean(setting) for setting in self._settings]
        if self.noise is None or not self.noise.paired:
            return levels
        pooled = self._pooled()
        seeds = set(itertools.chain(*pooled))
        design, y = _design(pooled, paired=True)
        effects = np.linalg.lstsq(design, y, rcond=None)[0]
        common = float(effects[len(pooled) :].mean())
        for index, setting in enumerate(pooled):
            if setting and setting.keys() != seeds:
                levels[index] = float(effects[index]) + common
        return levels

    def _share(self, first: int, second: int) -> float:
        """Return the variance of a difference in units of the noise's variance."""
        assert self.noise is not None
        values = self._pooled()
        a, b = values[first], values[second]
        if not self.noise.paired or a.keys() == b.keys():
            return 1 / len(a) + 1 / len(b)
        design, _ = _design(values, paired=True)
        direction = np.zeros(design.shape[1])
        direction[first], direction[second] = -1, 1
        return float(direction @ np.linalg.pinv(design.T @ design) @ direction)

    def _own_error(self, first: int, second: int) -> tuple[float, float]:
        """Return standard error and degrees of freedom (Welch, Satterthwaite)."""
        assert self.noise is not None
        parts = []
        for index in (first, second):
            setting = self._settings[index]
            if index in self.noise.excluded:
                variance, degrees = _variance(setting), len(setting) - 1
            else:
                variance, degrees = self.noise.deviation**2, self.noise.degrees
            parts.append((variance / len(setting), degrees))
        total = sum(variance for variance, _ in parts)
        if total == 0:
            return 0.0, 1.0
        return math.sqrt(total), total**2 / sum(v**2 / degrees for v, degrees in parts)


@cache
def critical_range(groups: int, degrees: float) -> float:
    """Return the 95 % quantile of the studentized range."""
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(CONFIDENCE, max(2, groups), degrees))


def _range_p(statistic: float, groups: int, degrees: float) -> float:
    from scipy.stats import studentized_range

    return float(np.clip(studentized_range.sf(statistic, max(2, groups), degrees), 0, 1))


def _noise(settings: Sequence[Values]) -> Noise | None:
    """Return the pooled deviation, None where no setting has two seeds."""
    excluded = _noisy(settings)
    kept = [{} if index in excluded else setting for index, setting in enumerate(settings)]
    for paired in (True, False):
        found = _fit(kept, paired=paired)
        if found is not None and found[1] >= (FEWEST_DEGREES if paired else 1):
            return Noise(math.sqrt(found[0]), found[1], paired, excluded)
    return None


def _fit(settings: Sequence[Values], *, paired: bool) -> tuple[float, int] | None:
    """Return residual variance and its degrees of freedom; None where the seeds do not match."""
    design, y = _design(settings, paired=paired)
    used = design[:, design.any(axis=0)]
    rank = int(np.linalg.matrix_rank(used)) if used.size else 0
    if paired and rank < used.shape[1] - 1:  # a setting shares no seed with the others
        return None
    degrees = len(y) - rank
    if degrees < 1:
        return None
    residual = y - used @ np.linalg.lstsq(used, y, rcond=None)[0]
    variance = float(residual @ residual) / degrees
    scale = float(np.max(np.abs(y)))
    return (variance if math.sqrt(variance) > 1e-12 * scale else 0.0), degrees


def _design(settings: Sequence[Values], *, paired: bool) -> tuple[Array, Array]:
    """Return a column for each setting and, paired, for each seed; and the values."""
    seeds = {seed: i for i, seed in enumerate(dict.fromkeys(itertools.chain(*settings)))}
    rows, values = [], []
    for index, setting in enumerate(settings):
        for seed, value in setting.items():
            row = np.zeros(len(settings) + len(seeds) * paired)
            row[index] = 1
            if paired:
                row[len(settings) + seeds[seed]] = 1
            rows.append(row)
            values.append(value)
    return np.array(rows).reshape(len(rows), -1), np.array(values)


def _noisy(settings: Sequence[Values]) -> frozenset[int]:
    """Return the settings whose variance is larger than the pooled one of the others."""
    from scipy.stats import f

    repeated = [index for index, setting in enumerate(settings) if len(setting) > 1]
    excluded: set[int] = set()
    while len(rest := [index for index in repeated if index not in excluded]) > 2:
        worst = max(rest, key=lambda index: _variance(settings[index]))
        others = [index for index in rest if index != worst]
        degrees = sum(len(settings[index]) - 1 for index in others)
        squares = sum(_variance(settings[i]) * (len(settings[i]) - 1) for i in others)
        own = _variance(settings[worst])
        if squares == 0 or own == 0:
            break
        # the largest of several variances, hence Bonferroni's correction
        p = f.sf(own / (squares / degrees), len(settings[worst]) - 1, degrees)
        if p * len(rest) > NOISY:
            break
        excluded.add(worst)
    return frozenset(excluded)


def _mean(setting: Values) -> float:
    return math.fsum(setting.values()) / len(setting)


def _variance(setting: Values) -> float:
    mean = _mean(setting)
    return math.fsum((value - mean) ** 2 for value in setting.values()) / (len(setting) - 1)
