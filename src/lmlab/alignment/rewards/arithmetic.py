"""Rewards of integers."""

import re

from lmlab.alignment.rewards.reward import Reward

INTEGER = re.compile(r"[+-]?[0-9]+")


def arithmetic(prompt: str, response: str, truth: str) -> Reward:
    """Return the reward of a response that should be one integer and nothing else."""
    answer = response.strip()
    is_integer = INTEGER.fullmatch(answer) is not None
    return Reward.of(is_integer, is_integer and int_of(answer) == int_of(truth))


def int_of(text: str) -> str:
    """Return an integer's digits without leading zeros and plus sign, however many they are."""
    text = text.strip()
    digits = text.lstrip("+-").lstrip("0") or "0"
    return f"-{digits}" if text.startswith("-") and digits != "0" else digits
