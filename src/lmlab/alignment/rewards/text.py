"""Rewards of answers that stand at a marked place of a response."""

import re

from lmlab.alignment.rewards.numbers import number_of, same_answer
from lmlab.alignment.rewards.reward import Reward, RewardFunction, checked

MARK = "####"
GSM8K_ANSWER = re.compile(MARK + r" (-?[0-9.,]+)")
BOXED = r"\boxed{"
END = "</answer>"
"""What ends a response in the format of R1-Zero."""


def gsm8k(prompt: str, response: str, truth: str) -> Reward:
    """Return the reward of a response whose answer is the number after the first `#### `.

    The truth is a number, or a worked answer that ends in one (Cobbe et al. 2021, whose expression
    finds the answer, as in lm-evaluation-harness). Commas do not count; 5.0 is 5.
    """
    found = GSM8K_ANSWER.search(response)
    answer = found[1].replace(",", "") if found else ""
    wanted = truth.rpartition(MARK)[2].replace(",", "")
    is_number = number_of(answer) is not None
    return Reward.of(is_number, is_number and same_answer(answer, wanted))


def answer_of(response: str) -> str | None:
    r"""Return what stands in the last `<answer>` of a response in the format of R1-Zero, or None.

    The format is strict: the thought ends in `</think> <answer>`, the response has `</answer>`. A
    `\boxed{...}` in the answer is the answer.
    """
    if "</think> <answer>" not in response or END not in response:
        return None
    answer = response.rpartition("<answer>")[2].replace(END, "")
    start = answer.rfind(BOXED)
    return answer if start < 0 else _boxed(answer[start + len(BOXED) :])


def _boxed(text: str) -> str:
    depth = 1
    for match in re.finditer(r"[{}]", text):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return text[: match.start()]
    return text


def r1_zero(prompt: str, response: str, truth: str) -> Reward:
    """Return the reward in the format of R1-Zero (Guo et al. 2025), for a number or a text."""
    answer = answer_of(response)
    return Reward.of(answer is not None, answer is not None and same_answer(answer, truth))


def in_r1_zero_format(inner: RewardFunction) -> RewardFunction:
    """Return a reward whose answer, in the format of R1-Zero, is judged by another reward."""

    def judged(prompt: str, response: str, truth: str) -> Reward:
        answer = answer_of(response)
        if answer is None:
            return Reward(0.0, 0.0, 0.0)
        found = checked(inner(prompt, answer, truth))
        return Reward(1.0, found.answer, found.total)

    return judged
