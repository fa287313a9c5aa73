"""A reward that can be gamed, to see what that looks like in a report."""

from lmlab.alignment.rewards.arithmetic import arithmetic
from lmlab.alignment.rewards.reward import Reward

MOST = 8
"""Digits that earn the whole reward."""


def long_numbers(prompt: str, response: str, truth: str) -> Reward:
    """Return a reward whose total is the number of digits, whatever the answer is."""
    judged = arithmetic(prompt, response, truth)
    digits = sum(character.isdigit() for character in response)
    return Reward(judged.format, judged.answer, min(digits, MOST) / MOST)
