"""How often responses are right: intervals, pass@k, and counts of format and answer."""

import math
from collections import Counter
from collections.abc import Sequence

from lmlab.alignment.rewards import Reward

Z = 1.959963984540054
"""Quantile of the normal distribution for 95 %."""


def wilson_interval(right: float, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927); it has a width at shares of 0 and 1 too.

    Raises ValueError for a total of 0.
    """
    if total < 1:
        raise ValueError("a share of nothing has no interval")
    share = right / total
    scale = 1 + Z**2 / total
    centre = (share + Z**2 / (2 * total)) / scale
    half = Z / scale * math.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Return the probability that one of k samples is right: `1 - C(n - c, k) / C(n, k)`.

    The unbiased estimate from n samples of which c are right (Chen et al. 2021). Raises ValueError
    when k is not between 1 and n.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"k={k} must be between 1 and the {samples} samples")
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def is_right(reward: Reward) -> bool:
    """Return whether an answer counts as right: its reward is 1."""
    return reward.answer >= 1


def format_answer_counts(rewards: Sequence[Reward]) -> dict[str, int]:
    """Return how many responses are right in format and answer, `1,1`, `1,0`, `0,0`, `0,1`."""
    counts = Counter(f"{reward.format >= 1:d},{is_right(reward):d}" for reward in rewards)
    return {key: counts[key] for key in ("1,1", "1,0", "0,0", "0,1") if counts[key]}
