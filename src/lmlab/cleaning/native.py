"""The native core as the rest of the package sees it: the only module that imports `_core`.

Words are cut at white space; signs at their ends, English contractions, and hyphens, slashes and
dashes between letters are cut off as words of their own. In scripts that put no space between words
(Chinese, Japanese, Thai, ...) each letter is a word. Positions are in characters.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt32, UInt64

from lmlab.cleaning.punctuation import PUNCTUATION, TERMINAL
from lmlab.errors import UserError

if TYPE_CHECKING:
    _core: Any
else:
    try:
        from lmlab.cleaning import _core
    except ImportError as error:
        raise UserError(
            f"the native core of cleaning is not built ({error}); build it with `pip install -e .` "
            "in the project's folder, which needs a C++20 compiler"
        ) from None

Spans = list[tuple[int, int]]
Hashes = UInt64[np.ndarray, " count"]

GOPHER = (
    *("words", "mean_word_length", "hash_ratio", "ellipsis_ratio"),
    *("bullet_lines", "ellipsis_lines", "alphabetic_words", "stop_words"),
)
FINEWEB = (
    *("lines", "punctuated_lines", "short_lines", "duplicate_line_characters", "newline_ratio"),
)
REPETITION = (
    *("characters", "duplicate_paragraphs", "duplicate_paragraph_characters"),
    *("duplicate_lines", "duplicate_line_characters"),
)


class Statistics:
    """Scores of texts by their words and lines, with datatrove's definitions."""

    def __init__(self, stop_words: Sequence[str] = ()) -> None:
        self._core = _core.Statistics(PUNCTUATION, TERMINAL, list(stop_words))

    def gopher(self, text: str) -> dict[str, float]:
        """Return the scores of GOPHER; ratios to nothing are 0.

        Where most words are letters of scripts without spaces, there is no mean_word_length.
        """
        scores = zip(GOPHER, self._core.gopher(text), strict=True)
        return {name: score for name, score in scores if not math.isnan(score)}

    def fineweb(self, text: str, short_line_length: int) -> dict[str, float]:
        """Return the scores of FINEWEB; ratios to nothing are 0."""
        return dict(zip(FINEWEB, self._core.fineweb(text, short_line_length), strict=True))

    def sentences(self, text: str) -> int:
        """Return the number of sentences: they end at words that are one terminal sign."""
        return int(self._core.sentences(text))


def repetition(
    text: str, top_ngrams: Sequence[int], duplicate_ngrams: Sequence[int]
) -> dict[str, float]:
    """Return the scores of REPETITION, `top_ngram_<n>` and `duplicate_ngram_<n>`."""
    *whole, top, duplicate = _core.repetition(text, list(top_ngrams), list(duplicate_ngrams))
    return (
        dict(zip(REPETITION, whole, strict=True))
        | {f"top_ngram_{n}": share for n, share in zip(top_ngrams, top, strict=True)}
        | {f"duplicate_ngram_{n}": s for n, s in zip(duplicate_ngrams, duplicate, strict=True)}
    )


def split_words(text: str) -> list[str]:
    """Return the words in order."""
    return [text[start:end] for start, end in word_spans(text)]


def word_spans(text: str) -> Spans:
    """Return where the words are."""
    spans: Spans = _core.words(text)
    return spans


def duplicate_parts(text: str, *, paragraphs: bool) -> Spans:
    """Return the lines, or paragraphs, that equal an earlier one."""
    spans: Spans = _core.duplicate_parts(text, paragraphs)
    return spans


def duplicate_ngrams(text: str, n: int) -> Spans:
    """Return the n-grams of words that equal an earlier one and do not overlap."""
    spans: Spans = _core.duplicate_ngrams(text, n)
    return spans


def top_ngram(text: str, n: int) -> Spans:
    """Return the occurrences of the most frequent n-gram of words."""
    spans: Spans = _core.top_ngram(text, n)
    return spans


def line_hashes(text: bytes) -> Hashes:
    """Return the hash of each line between "\\n", without a "\\r" at its end."""
    hashes: Hashes = _core.line_hashes(text)
    return hashes


def ngram_hashes(words: bytes, n: int) -> Hashes:
    """Return the hash of each n-gram of words that spaces separate, in order.

    Fewer words are one n-gram; no words have none.
    """
    hashes: Hashes = _core.ngram_hashes(words, n)
    return hashes


def ngram_set(words: bytes, n: int) -> Hashes:
    """Return the different hashes of `ngram_hashes`, sorted."""
    hashes: Hashes = _core.ngram_set(words, n)
    return hashes


def shared(a: Hashes, b: Hashes) -> int:
    """Return how many elements two sorted sets share."""
    return int(_core.shared(a, b))


def signatures(
    texts: Sequence[bytes],
    n: int,
    factors: UInt32[np.ndarray, " num_hashes"],
    terms: UInt32[np.ndarray, " num_hashes"],
) -> UInt32[np.ndarray, "texts num_hashes"]:
    """Return the smallest image of a text's n-grams under each permutation; all ones for none.

    The factors are odd.
    """
    table: UInt32[np.ndarray, "texts num_hashes"] = _core.signatures(list(texts), n, factors, terms)
    return table


class Extractor:
    """Extracts the main content of HTML: two linear classifiers of its blocks of text.

    The second one also sees what the first says of the surroundings.
    """

    def __init__(
        self, entities: Mapping[str, str], first: Sequence[float], second: Sequence[float]
    ) -> None:
        """Take entities (name with its semicolon -> text) and the weights of both classifiers."""
        self._core = _core.Extractor(dict(entities), list(first), list(second))

    def extract(self, html: bytes, max_depth: int) -> tuple[int, str]:
        """Return how deep elements nest and the main content, one block a line.

        `html` is UTF-8. The text is empty where elements nest deeper than `max_depth`: the page is
        then read no further.
        """
        depth, text = self._core.extract(html, max_depth)
        return depth, text

    def blocks(self, html: bytes, *, context: bool) -> list[tuple[str, list[float]]]:
        """Return each block with its features for the first classifier, or for the second."""
        blocks: list[tuple[str, list[float]]] = self._core.blocks(html, context)
        return blocks


def html_depth(html: bytes, max_depth: int) -> int:
    """Return how deep the elements of UTF-8 HTML nest; max_depth + 1 stands for more."""
    return int(_core.html_depth(html, max_depth))
