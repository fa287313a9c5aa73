"""Against scipy, and against Holm's procedure worked by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lmlab.runs.statistics import estimate, holm, welch

LOSSES = st.lists(st.floats(1, 10), min_size=2, max_size=6).filter(
    lambda values: max(values) - min(values) > 1e-3
)


@given(LOSSES)
def test_the_interval_is_students(values: list[float]) -> None:
    e = estimate(values)
    low, high = stats.t.interval(0.95, len(values) - 1, *(e.mean, stats.sem(values)))
    assert (e.low, e.high) == pytest.approx((low, high))
    assert e.sd == pytest.approx(stats.tstd(values))


@given(LOSSES, LOSSES)
def test_welch_by_its_formula(a: list[float], b: list[float]) -> None:
    difference = welch(a, b)
    va, vb = stats.tvar(a) / len(a), stats.tvar(b) / len(b)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    t = (stats.tmean(b) - stats.tmean(a)) / math.sqrt(va + vb)
    assert difference.p == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-6)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(va + vb)
    assert difference.value == pytest.approx(stats.tmean(b) - stats.tmean(a))
    assert difference.low == pytest.approx(difference.value - half, rel=1e-6, abs=1e-9)


def test_what_cannot_be_known_is_none() -> None:
    assert estimate([]).n == 0
    assert estimate([2.0]).low is None
    assert welch([1.0], [2.0, 3.0]).p is None
    assert welch([1.0, 1.0], [2.0, 2.0]).p == 0
    assert welch([2.0, 2.0], [2.0, 2.0]).p == 1


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
