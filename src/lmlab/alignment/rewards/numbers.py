"""Numbers in text, compared exactly."""

import re
from fractions import Fraction

_DIGITS = 40
"""Longest number that is read as one: more digits would make exact numbers slow."""
_GROUPED = re.compile(r"[-+]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?")


def number_of(text: str) -> Fraction | None:
    """Return the number that a text is, without `$` and `%`; None when it is none.

    Decimals and fractions like `3/4` are exact. Commas separate groups of three digits.
    """
    cleaned = text.strip().strip("$").rstrip("%.").strip()
    cleaned = re.sub(r"(?<=/)\s+|\s+(?=/)|(?<=^[-+])\s+", "", cleaned)
    if _GROUPED.fullmatch(cleaned):
        cleaned = cleaned.replace(",", "")
    if len(cleaned) > _DIGITS or re.fullmatch(r"[-+]?[0-9]*\.?[0-9]+(/[0-9]+)?", cleaned) is None:
        return None
    try:
        top, _, bottom = cleaned.partition("/")
        return Fraction(top) / Fraction(bottom or 1)
    except ZeroDivisionError:
        return None


def same_answer(answer: str, truth: str) -> bool:
    """Return whether an answer is the number that the truth is, or where that is no number, the
    same text but for case and spaces.
    """
    wanted = number_of(truth)
    if wanted is not None:
        return number_of(answer) == wanted
    return _plain(answer) == _plain(truth)


def _plain(text: str) -> str:
    return "".join(text.split()).rstrip(".").casefold()
