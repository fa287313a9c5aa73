"""Cutting text into special tokens and pretokens: the definition every other part is checked with.

Text is split on the special tokens first, the longest one winning where several match; a pattern
then cuts the rest into pretokens, and BPE merges never cross a pretoken.
"""

import functools
import itertools
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import regex

from lmlab.errors import DataError, UserError

Special = Literal["parse", "text", "error"]
"""How special tokens in a text are read: whole, as ordinary text, or as a DataError."""

PATTERNS = {
    # GPT-2 (Radford et al. 2019), in the order its encoder.py tries them.
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    # GPT-4, as published and as Llama 3 uses it. (tiktoken's later rewriting of it begins with
    # `\s++$` where this has `\s*[\r\n]+`, and so keeps "\n  " whole at the very end of a text.)
    "cl100k": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    # GPT-4o: words know upper and lower case, contractions stay with their word.
    "o200k": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
"""The patterns that the native core scans; any other `regex` pattern works too, more slowly."""


@functools.lru_cache(maxsize=32)
def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """A pattern, given by name or written out, compiled; a broken one is a UserError."""
    try:
        return regex.compile(PATTERNS.get(pattern, pattern))
    except regex.error as error:
        names = ", ".join(PATTERNS)
        raise UserError(
            f"pattern {pattern!r} is neither one of {names} nor a regular expression: {error}"
        ) from None


def check_special_tokens(special_tokens: Collection[str]) -> None:
    """Raise a UserError for an empty or a repeated special token, or one that is not Unicode."""
    if isinstance(special_tokens, str):
        raise UserError(f"special_tokens should be a list of strings, such as [{special_tokens!r}]")
    seen: set[str] = set()
    for token in special_tokens:
        if not token:
            raise UserError("a special token is empty; give it at least one character")
        if token in seen:
            raise UserError(f"special token {token!r} is given twice")
        to_utf8(token, "special token")
        seen.add(token)


def to_utf8(text: str, what: str = "text") -> bytes:
    """The UTF-8 bytes of `text`; a lone surrogate, which has none, is a DataError."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise lone_surrogate(error, what) from None


def lone_surrogate(error: UnicodeEncodeError, what: str = "text") -> DataError:
    """What to tell of a text that has no UTF-8."""
    return DataError(
        f"{what} has a lone surrogate {error.object[error.start]!a} at character {error.start}, "
        "which UTF-8 cannot hold; decode the bytes with errors='replace'"
    )


def split_special(text: str, special_tokens: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The parts of `text` in order, each with whether it is a special token; no part is empty.

    At each place the longest special token that matches there wins.
    """
    yield from split_special_stream([text], special_tokens)


def split_special_stream(
    pieces: Iterable[str], special_tokens: Sequence[str]
) -> Iterator[tuple[str, bool]]:
    """`split_special` of the joined pieces, as soon as each part is certain.

    Holds no more text than lies between two special tokens, which may straddle pieces.
    """
    longest_first = sorted(special_tokens, key=len, reverse=True)
    longest = len(longest_first[0]) if longest_first else 0
    # (?!) matches nowhere.
    special = regex.compile("|".join(map(regex.escape, longest_first)) or "(?!)")
    held: list[str] = []  # ordinary text whose end is not known yet
    tail = ""  # text after it that may begin a special token
    for piece in itertools.chain(pieces, [None]):
        tail += piece or ""
        start = 0
        for match in special.finditer(tail):
            if piece is not None and match.start() + longest > len(tail):
                break  # a longer special token may still come to match here
            if text := "".join(held) + tail[start : match.start()]:
                yield text, False
            held.clear()
            yield match.group(), True
            start = match.end()
        certain = len(tail) if piece is None else max(start, len(tail) - longest + 1)
        held.append(tail[start:certain])
        tail = tail[certain:]
    if text := "".join(held):
        yield text, False


@dataclass(frozen=True)
class Cutting:
    """What other libraries do beside cutting by one pattern that covers the text."""

    nfc: bool = False
    """Text is brought to Unicode's form NFC first, so that decoding may give other bytes."""
    before: tuple[str, ...] = ()
    """Patterns whose matches, and the text between them, are cut apart before the last pattern."""
    isolate: bool = False
    """Text that the last pattern leaves out is a pretoken of its own."""

    def pretokens(self, text: str, pattern: str) -> Iterator[str]:
        """The pretokens of `text`, which has no special token in it."""
        pieces: Iterable[str] = [unicodedata.normalize("NFC", text) if self.nfc else text]
        for step in self.before:
            pieces = [part for piece in pieces for part in split_pretokens(piece, step, True)]
        for piece in pieces:
            yield from split_pretokens(piece, pattern, self.isolate)


PLAIN = Cutting()
"""Nothing beside one pattern that covers the text."""


def split_pretokens(text: str, pattern: str, isolate: bool = False) -> Iterator[str]:
    """The pretokens of `text`, which has no special token in it; together they are the text.

    Text that the pattern leaves out is a pretoken of its own with `isolate`, and otherwise a
    UserError that shows where it begins.
    """
    end = 0
    for match in compile_pattern(pattern).finditer(text):
        if match.start() > end and match.end() > match.start():
            if not isolate:
                break
            yield text[end : match.start()]
            end = match.start()
        if match.end() > match.start():
            yield match.group()
            end = match.end()
    if end < len(text) and isolate:
        yield text[end:]
    elif end < len(text):
        raise UserError(
            f"pattern {pattern!r} does not cover the text: nothing matches at "
            f"{text[end : end + 20]!r}; end it with '|(?s:.)', or use "
            f"{', '.join(PATTERNS)}"
        )
