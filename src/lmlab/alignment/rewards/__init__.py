"""Rewards: functions of prompt, response and truth, found by name."""

from lmlab.alignment.rewards.grading import Grader
from lmlab.alignment.rewards.registry import kept_stops, reward_function
from lmlab.alignment.rewards.reward import NO_REWARD, Reward, RewardFunction, checked

__all__ = [
    "NO_REWARD",
    "Grader",
    "Reward",
    "RewardFunction",
    "checked",
    "kept_stops",
    "reward_function",
]
