"""Against scipy: t-tests, paired and pooled, and Tukey's test."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from lmlab.runs.statistics import Comparisons, Difference, estimate

LOSSES = st.lists(st.floats(1, 10), min_size=2, max_size=6).filter(
    lambda values: max(values) - min(values) > 1e-3
)


@given(LOSSES)
def test_the_interval_is_students(values: list[float]) -> None:
    e = estimate(values)
    low, high = stats.t.interval(0.95, len(values) - 1, *(e.mean, stats.sem(values)))
    assert (e.low, e.high) == pytest.approx((low, high))
    assert e.sd == pytest.approx(stats.tstd(values))


SEEDS = st.lists(st.tuples(st.floats(1, 10), st.floats(1, 10)), min_size=3, max_size=6)


@given(SEEDS)
def test_two_settings_with_the_same_seeds_are_the_paired_t_test(
    pairs: list[tuple[float, float]],
) -> None:
    first, second = zip(*pairs, strict=True)
    assume(np.std(np.subtract(second, first)) > 1e-3)
    found = compare(dict(enumerate(first)), dict(enumerate(second)))
    test = stats.ttest_rel(second, first)
    interval = test.confidence_interval(0.95)
    assert found.p == pytest.approx(test.pvalue, rel=1e-3, abs=1e-6)
    assert found.value == pytest.approx(np.mean(second) - np.mean(first))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-3)


@given(LOSSES, LOSSES)
def test_other_seeds_are_the_t_test_with_pooled_variance(a: list[float], b: list[float]) -> None:
    found = compare(dict(enumerate(a)), {f"other {i}": value for i, value in enumerate(b)})
    test = stats.ttest_ind(b, a, equal_var=True)
    assert found.p == pytest.approx(test.pvalue, rel=1e-3, abs=1e-6)
    assert found.low == pytest.approx(test.confidence_interval(0.95).low, rel=1e-3, abs=1e-6)


def test_several_settings_are_tukeys_test() -> None:
    groups = [[24.5, 23.5, 26.4, 27.1], [28.4, 34.2, 29.5, 32.2], [26.1, 28.3, 24.3, 26.2]]
    settings = [{(g, i): v for i, v in enumerate(group)} for g, group in enumerate(groups)]
    tests, outside = Comparisons(settings), stats.tukey_hsd(*groups)
    for i, j in itertools.combinations(range(3), 2):
        assert tests.difference(i, j).p == pytest.approx(outside.pvalue[i, j], rel=1e-6)


def test_six_deviations_with_two_seeds_are_significant() -> None:
    """Whatever the number of settings, and whether they are paired or not."""
    for count in (2, 3, 4, 8):
        noise = [(0.5, -0.5), (-0.5, 0.5)] * count
        levels = [0.0] + [6.0] * (count - 1)
        settings = [
            {seed: level + noise[index][seed] for seed in range(2)}
            for index, level in enumerate(levels)
        ]
        tests = Comparisons(settings)
        assert tests.noise is not None
        scaled = [
            {seed: value + (level * tests.noise.deviation - level) for seed, value in s.items()}
            for s, level in zip(settings, levels, strict=True)
        ]
        assert all(Comparisons(scaled).difference(0, i).p < 0.05 for i in range(1, count))


def test_a_seed_that_is_missing_leaves_the_others_paired() -> None:
    settings = [{0: 1.0, 1: 2.0, 2: 3.0}, {0: 1.5, 1: 2.5, 2: 3.5}, {1: 2.2}]
    tests = Comparisons(settings)
    assert tests.noise is not None
    assert tests.noise.paired
    assert tests.difference(0, 2).value == pytest.approx(0.2)


def test_levels_are_least_squares_means() -> None:
    """The second setting lacks the third seed."""
    tests = Comparisons([{0: 1.0, 1: 2.0, 2: 9.0}, {0: 1.5, 1: 2.5}, {0: 1.1, 1: 2.0, 2: 9.2}])
    assert tests.levels[0] == pytest.approx(4.0)
    assert tests.levels[2] == pytest.approx(4.1)
    assert tests.difference(0, 1).value == pytest.approx(tests.levels[1] - 4.0)
    assert tests.levels[1] == pytest.approx(_by_normal_equations(), abs=1e-9)


def _by_normal_equations() -> float:
    """Return the second setting's mean over three seeds, from dummy variables."""
    rows = [(0, 0, 1.0), (0, 1, 2.0), (0, 2, 9.0), (1, 0, 1.5), (1, 1, 2.5)]
    rows += [(2, 0, 1.1), (2, 1, 2.0), (2, 2, 9.2)]
    x = np.array([[1, g == 1, g == 2, s == 1, s == 2] for g, s, _ in rows], float)
    b = np.linalg.solve(x.T @ x, x.T @ np.array([y for *_, y in rows]))
    return float(b[0] + b[1] + (b[3] + b[4]) / 3)


def test_a_noisy_setting_does_not_hide_the_others() -> None:
    quiet = [{0: level, 1: level + 0.01, 2: level - 0.01} for level in (3.0, 3.1, 3.2)]
    tests = Comparisons([*quiet, {0: 3.3, 1: 5.0, 2: 4.0}])
    assert tests.noise is not None
    assert tests.noise.excluded == {3}
    assert tests.difference(0, 1).p < 0.05
    assert tests.difference(0, 3).p > 0.05


def test_what_cannot_be_known_is_none() -> None:
    assert estimate([]).n == 0
    assert estimate([2.0]).low is None
    assert compare({0: 1.0}, {0: 2.0}).p is None
    assert compare({0: 1.0, 1: 1.0}, {0: 2.0, 1: 2.0}).p == 0
    assert compare({0: 2.0, 1: 2.0}, {0: 2.0, 1: 2.0}).p == 1


def compare(first: dict[Any, float], second: dict[Any, float]) -> Difference:
    return Comparisons([first, second]).difference(0, 1)
