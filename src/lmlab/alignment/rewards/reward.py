"""What a reward is: numbers for the format and the answer of a response, and their total."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reward:
    """The reward of a response; 1 is right."""

    format: float
    """Whether the response has the form that was asked for."""
    answer: float
    """Whether the answer is right."""
    total: float
    """What a policy is trained to maximise."""

    @classmethod
    def of(cls, format: bool, answer: bool) -> "Reward":
        """Return a reward whose total is the answer's, which counts in the right format only."""
        right = float(format and answer)
        return cls(float(format), right, right)


RewardFunction = Callable[[str, str, str], Reward | Mapping[str, float]]
"""Takes prompt, response and truth; a mapping has the keys `format`, `answer` and `total`."""
NO_REWARD = Reward(0.0, 0.0, 0.0)
"""The reward of a response whose reward could not be computed."""
KEYS = ("format", "answer", "total")


def checked(value: Any) -> Reward:
    """Return what a reward function returned as a Reward.

    Raises ValueError when it is none, and when a number is not finite.
    """
    if isinstance(value, Reward):
        value = {key: getattr(value, key) for key in KEYS}
    if not isinstance(value, Mapping) or set(value) != set(KEYS):
        raise ValueError(f"a reward has the keys {', '.join(KEYS)}, got {value!r}")
    numbers = {key: float(value[key]) for key in KEYS}
    wrong = [key for key, number in numbers.items() if not math.isfinite(number)]
    if wrong:
        raise ValueError(f"the reward's {wrong[0]} is {numbers[wrong[0]]}, not a finite number")
    return Reward(**numbers)
