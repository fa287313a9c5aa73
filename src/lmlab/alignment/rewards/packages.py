"""Rewards of other packages: reasoning-gym and math-verify."""

import json
from typing import Any

from lmlab.alignment.rewards.reward import Reward, RewardFunction
from lmlab.errors import UserError

INSTALL = "pip install 'lmlab[alignment]'"


def reasoning_gym(name: str) -> RewardFunction:
    """Return the reward of a task of reasoning-gym (Stojanovski et al. 2025), from 0 to 1.

    The truth is an entry of the task as JSON. The format is right when there is an answer. Raises
    UserError when the package or the task is missing.
    """
    try:
        import reasoning_gym as gym
    except ImportError as error:
        raise UserError(
            f"reward 'reasoning_gym:{name}' needs reasoning-gym; install it with {INSTALL}"
        ) from error
    try:
        score = gym.get_score_answer_fn(name)
    except (KeyError, ValueError, AttributeError):
        raise UserError(
            f"reward 'reasoning_gym:{name}': reasoning-gym has no task '{name}'"
        ) from None

    def judged(prompt: str, response: str, truth: str) -> Reward:
        answer = response.strip()
        found = float(score(answer=answer, entry=json.loads(truth))) if answer else 0.0
        return Reward(float(bool(answer)), found, found)

    return judged


def math_verify() -> RewardFunction:
    """Return the reward of a mathematical answer, compared as an expression by math-verify.

    The format is right when an answer is found. It may take long: judge it with a deadline. Raises
    UserError when the package is missing.
    """
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise UserError(
            f"reward 'math_verify' needs math-verify; install it with {INSTALL}"
        ) from error

    def parsed(text: str) -> list[Any]:
        # Without its own time limit, an alarm that works in the main thread alone.
        return list(parse(text, parsing_timeout=None))

    def judged(prompt: str, response: str, truth: str) -> Reward:
        marked = "$" in truth or "\\boxed" in truth
        answer, wanted = parsed(response), parsed(truth if marked else f"${truth}$")
        right = bool(answer) and bool(verify(wanted, answer, timeout_seconds=None))
        return Reward.of(bool(answer), right)

    return judged
