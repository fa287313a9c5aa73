"""Intervals and pass@k against outside implementations."""

import itertools

import pytest
from scipy.stats import binomtest

from lmlab.alignment.accuracy import format_answer_counts, pass_at_k, wilson_interval
from lmlab.alignment.rewards import Reward


@pytest.mark.parametrize(("right", "total"), [(0, 5), (5, 5), (1, 3), (37, 100), (1, 1)])
def test_the_interval_of_a_share_equals_that_of_scipy(right: int, total: int) -> None:
    expected = binomtest(right, total).proportion_ci(method="wilson")
    assert wilson_interval(right, total) == pytest.approx((expected.low, expected.high))
    with pytest.raises(ValueError, match="a share of nothing"):
        wilson_interval(0, 0)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_pass_at_k_is_the_mean_over_all_choices_of_k_samples(k: int) -> None:
    for right in range(6):
        samples = [True] * right + [False] * (5 - right)
        choices = [any(chosen) for chosen in itertools.combinations(samples, k)]
        assert pass_at_k(5, right, k) == pytest.approx(sum(choices) / len(choices))
    with pytest.raises(ValueError, match="k=6 must be between 1 and the 5 samples"):
        pass_at_k(5, 1, 6)


def test_counts_of_format_and_answer() -> None:
    rewards = [Reward(1, 1, 1), Reward(1, 0.9, 1), Reward(0, 0, 0), Reward(1, 1, 2)]
    assert format_answer_counts(rewards) == {"1,1": 2, "1,0": 1, "0,0": 1}
