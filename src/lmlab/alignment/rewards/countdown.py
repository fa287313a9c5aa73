"""Rewards of arithmetic expressions that make a target of given numbers."""

import ast
import json
import operator
from collections.abc import Callable
from fractions import Fraction

from lmlab.alignment.rewards.reward import Reward

LONGEST = 200
"""Characters of an expression."""
OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def countdown(prompt: str, response: str, truth: str) -> Reward:
    """Return the reward of an expression of + - * / that makes the target; `= target` may follow.

    The truth is JSON with `numbers` and `target`. The format is right when the expression uses each
    number once and no other (TinyZero, Pan et al. 2025).
    """
    wanted = json.loads(truth)
    text = response.strip().split("\n", 1)[0].partition("=")[0].strip()
    found = evaluated(text)
    if found is None:
        return Reward.of(False, False)
    value, numbers = found
    used_once = sorted(numbers) == sorted(wanted["numbers"])
    return Reward.of(used_once, value == wanted["target"])


def evaluated(text: str) -> tuple[Fraction, list[int]] | None:
    """Return the exact value of an expression and the integers in it; None when it has no value."""
    if len(text) > LONGEST or not text.isascii():
        return None
    try:
        expression = ast.parse(text, mode="eval")
        numbers: list[int] = []
        return _value(expression.body, numbers), numbers
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, numbers: list[int]) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        numbers.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        left, right = _value(node.left, numbers), _value(node.right, numbers)
        return OPERATIONS[type(node.op)](left, right)
    raise ValueError("neither a number nor + - * /")
