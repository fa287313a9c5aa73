"""Numbers in text, compared exactly."""

import re
from fractions import Fraction

_DIGITS = 40
"""Longest number that is read as one: more digits would make exact numbers slow."""


def number_of(text: str) -> Fraction | None:
    """Return the number that a text is, without `$`, `%` and commas; None when it is none.

    Decimals and fractions like `3/4` are exact.
    """
    cleaned = text.strip().strip("$").rstrip("%.").replace(",", "").replace(" ", "")
    if len(cleaned) > _DIGITS or re.fullmatch(r"[-+]?[0-9]*\.?[0-9]+(/[0-9]+)?", cleaned) is None:
        return None
    try:
        top, _, bottom = cleaned.partition("/")
        return Fraction(top) / Fraction(bottom or 1)
    except ZeroDivisionError:
        return None


def same_answer(answer: str, truth: str) -> bool:
    """Return whether two answers are the same number, or the same text but for case and spaces."""
    numbers = number_of(answer), number_of(truth)
    if numbers[0] is not None and numbers[1] is not None:
        return numbers[0] == numbers[1]
    return _plain(answer) == _plain(truth)


def _plain(text: str) -> str:
    return "".join(text.split()).rstrip(".").casefold()
