"""Sampling options and their ranges."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from lmlab.errors import UserError


class OptionValues(TypedDict, total=False):
    """Keyword arguments that make Options."""

    max_new_tokens: int
    min_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int
    stop: str | Sequence[str]
    logprobs: int | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a text is continued; a value out of range is a UserError."""

    max_new_tokens: int = 256
    """Generated tokens at most."""
    min_new_tokens: int = 0
    """The end token is not drawn before this many tokens."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int | None = None
    """Keep the k likeliest tokens."""
    top_p: float = 1.0
    """Keep the smallest set of likeliest tokens whose probability reaches p (Holtzman 2020)."""
    min_p: float = 0.0
    """Keep tokens with at least this share of the largest probability (Nguyen et al. 2024)."""
    repetition_penalty: float = 1.0
    """Divides positive, multiplies negative logits of tokens in the text (Keskar et al. 2019)."""
    seed: int = 0
    """Seed of the random draws of this sequence."""
    stop: tuple[str, ...] = ()
    """Strings that end the text; they are not part of it. `<|endoftext|>` always ends it."""
    logprobs: int | None = None
    """Return the log-probability of each token, and of this many likeliest; None: neither."""

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):  # one string is a list of one
            object.__setattr__(self, "stop", (self.stop,))
        object.__setattr__(self, "stop", tuple(self.stop))
        self._check("max_new_tokens", _whole(self.max_new_tokens, 1), "an integer of at least 1")
        self._check("min_new_tokens", _whole(self.min_new_tokens, 0), "an integer of at least 0")
        self._check("temperature", _number(self.temperature, 0), "a number of at least 0")
        whole = self.top_k is None or _whole(self.top_k, 1)
        self._check("top_k", whole, "an integer of at least 1, or none")
        positive = _number(self.top_p, 0, 1) and self.top_p > 0
        self._check("top_p", positive, "a number above 0 and at most 1")
        self._check("min_p", _number(self.min_p, 0, 1), "a number from 0 to 1")
        positive = _number(self.repetition_penalty, 0) and self.repetition_penalty > 0
        self._check("repetition_penalty", positive, "a number above 0")
        self._check("seed", _whole(self.seed, None), "an integer")
        texts = all(isinstance(text, str) and text for text in self.stop)
        self._check("stop", texts, "strings that are not empty")
        some = self.logprobs is None or _whole(self.logprobs, 0)
        self._check("logprobs", some, "an integer of at least 0, or none")

    def _check(self, name: str, valid: bool, rule: str) -> None:
        if not valid:
            raise UserError(f"{name} must be {rule}, got {getattr(self, name)!r}")


def _whole(value: object, lowest: int | None) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and (lowest is None or value >= lowest)  # type: ignore[operator]


def _number(value: object, lowest: float, highest: float = math.inf) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and lowest <= value <= highest  # type: ignore
