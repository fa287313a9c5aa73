"""Intervals against scipy, a bootstrap and a sum by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from lmlab.errors import DataError
from lmlab.evaluation.estimate import ratio
from lmlab.evaluation.text import TextResult


def test_with_equal_weights_it_is_the_mean_with_students_interval() -> None:
    values = np.array([1.0, 4.0, 2.0, 7.0, 3.5])
    found = ratio(values, np.ones(5))
    interval = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    assert found.value == pytest.approx(values.mean())
    assert found.error == pytest.approx(stats.sem(values))
    assert (found.low, found.high) == pytest.approx(interval)


def test_a_ratio_worked_by_hand() -> None:
    found = ratio(np.array([2.0, 9.0]), np.array([1, 3]))
    assert found.value == 11 / 4
    # residuals 2 - 2.75 = -0.75 and 9 - 8.25 = 0.75; sqrt(2 * 1.125) / 4
    assert found.error == pytest.approx(1.5 / 4)


def test_the_error_is_that_of_a_bootstrap_over_documents() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(50, 5000, 400)
    sums = sizes * rng.normal(1.5, 0.4, 400)
    draws = rng.integers(0, 400, (4000, 400))
    resampled = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    assert ratio(sums, sizes).error == pytest.approx(resampled.std(), rel=0.05)


def test_one_document_has_no_interval() -> None:
    found = ratio(np.array([3.0]), np.array([2]))
    assert found.value == 1.5
    assert found.error is found.low is found.high is None


def test_a_paired_difference_is_tighter_than_either() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(100, 1000, 50)
    nats = sizes * rng.normal(1.0, 0.3, 50)
    one = TextResult(nats, sizes // 3, sizes)
    two = TextResult(nats + 0.01 * sizes + rng.normal(0, 0.1, 50), sizes // 4, sizes)
    difference = two.minus(one)
    assert difference.value == pytest.approx(
        two.bits_per_byte.value - one.bits_per_byte.value, abs=1e-12
    )
    assert difference.error is not None
    assert one.bits_per_byte.error is not None
    assert difference.error < one.bits_per_byte.error / 100
    assert difference.low is not None
    assert 0 < difference.low < 0.01 / math.log(2) < (difference.high or 0)
    with pytest.raises(DataError, match="changed while they were read"):
        one.minus(TextResult(nats[1:], sizes[1:], sizes[1:]))
