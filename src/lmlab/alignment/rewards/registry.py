"""Reward functions by name, and by dotted path."""

import importlib
from collections.abc import Callable

from lmlab.alignment.rewards.arithmetic import arithmetic
from lmlab.alignment.rewards.countdown import countdown
from lmlab.alignment.rewards.packages import math_verify, reasoning_gym
from lmlab.alignment.rewards.reward import RewardFunction
from lmlab.alignment.rewards.text import END, gsm8k, in_r1_zero_format, r1_zero
from lmlab.errors import UserError

REWARDS: dict[str, RewardFunction] = {
    "arithmetic": arithmetic,
    "countdown": countdown,
    "gsm8k": gsm8k,
    "r1_zero": r1_zero,
}
IMPORTED: dict[str, Callable[[], RewardFunction]] = {"math_verify": math_verify}
"""Rewards that need a package."""
WITH_NAME: dict[str, Callable[[str], RewardFunction]] = {
    "r1_zero": lambda inner: in_r1_zero_format(reward_function(inner)),
    "reasoning_gym": reasoning_gym,
}
"""Rewards that take the name of something: `r1_zero:gsm8k`, `reasoning_gym:chain_sum`."""

KEPT = {"r1_zero": (END,)}
"""Ends of the format that a reward asks for, which may be stop texts."""


def kept_stops(name: str) -> tuple[str, ...]:
    """Return the stop texts that a reward must see at the end of a response that they ended."""
    return KEPT.get(name.partition(":")[0], ())


def reward_function(name: str) -> RewardFunction:
    """Return the reward function of a name: a built-in one, or `package.module.function`.

    Raises UserError when there is none, or its package is missing.
    """
    if name in REWARDS:
        return REWARDS[name]
    if name in IMPORTED:
        return IMPORTED[name]()
    kind, colon, inner = name.partition(":")
    if colon and kind in WITH_NAME:
        return WITH_NAME[kind](inner)
    module, _, function = name.rpartition(".")
    if not module or colon:
        known = ", ".join([*REWARDS, *IMPORTED, *(f"{kind}:NAME" for kind in WITH_NAME)])
        raise UserError(f"unknown reward '{name}'; known: {known}, or a function by dotted path")
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever importing a module of the user's raises
        raise UserError(f"reward '{name}' cannot be imported: {error}") from error
    if not callable(found):
        raise UserError(f"reward '{name}' is no function of (prompt, response, truth)")
    own: RewardFunction = found
    return own
