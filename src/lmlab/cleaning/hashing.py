"""Normalised words and hashes of their n-grams, for deduplication and decontamination."""

import functools
import re
import string
import sys
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt32, UInt64

from lmlab.cleaning import native
from lmlab.cleaning.native import Hashes

_ASCII = bytes(ord(" ") if chr(code).isspace() else code for code in range(128)) + bytes(128)
_ASCII_PUNCTUATION = string.punctuation.encode()
UNSPACED_RANGES = (
    *((0x0E00, 0x109F), (0x1780, 0x17DF), (0x3005, 0x312F), (0x31F0, 0x31FF), (0x3400, 0x9FFF)),
    *((0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x3FFFF)),
)
"""The ranges of `is_unspaced` in _core/characters.hpp: Thai, Lao, Tibetan, Burmese; Khmer; kana and
Bopomofo; ideographs."""


def normalize(text: str) -> bytes:
    """Return the words of a text as UTF-8 with spaces between them.

    Lower case, NFD without accents and other combining marks, no punctuation (Unicode's categories
    P and string.punctuation): words are what white space separates then. In scripts that put no
    space between words, each letter is a word.
    """
    if text.isascii():
        return text.lower().encode().translate(_ASCII, _ASCII_PUNCTUATION)
    decomposed = unicodedata.normalize("NFD", text.lower())
    words = _unspaced().sub(r" \g<0> ", _dropped().sub("", decomposed)).split()
    return " ".join(words).encode(errors="replace")


@functools.cache
def _dropped() -> re.Pattern[str]:
    """Return a pattern of the characters that `normalize` drops."""
    characters = map(chr, range(sys.maxunicode + 1))
    codes = [
        ord(c)
        for c in characters
        if (kind := unicodedata.category(c))[0] == "P" or kind == "Mn" or c in string.punctuation
    ]
    return re.compile(f"{_class(codes)}+")


@functools.cache
def _unspaced() -> re.Pattern[str]:
    """Return a pattern of a letter of scripts without spaces, with the marks that are left."""
    codes = [code for low, high in UNSPACED_RANGES for code in range(low, high + 1)]
    letters, marks = (
        [code for code in codes if unicodedata.category(chr(code))[0] == kind] for kind in "LM"
    )
    return re.compile(f"{_class(letters)}{_class(marks)}*")


def _class(codes: Sequence[int]) -> str:
    """Return a class of characters for a pattern; the codes ascend."""
    breaks = [i for i in range(1, len(codes)) if codes[i] != codes[i - 1] + 1]
    starts, ends = [0, *breaks], [*breaks, len(codes)]
    ranges = (f"\\U{codes[a]:08x}-\\U{codes[b - 1]:08x}" for a, b in zip(starts, ends, strict=True))
    return f"[{''.join(ranges)}]"


def ngram_hashes(text: str, n: int) -> Hashes:
    """Return the hash of each n-gram of a text's normalised words, in order.

    A text of fewer words is one n-gram; one without words has none.
    """
    return native.ngram_hashes(normalize(text), n)


def ngram_set(text: str, n: int) -> Hashes:
    """Return the different hashes of `ngram_hashes`, sorted."""
    return native.ngram_set(normalize(text), n)


def jaccard(a: Hashes, b: Hashes) -> float:
    """Return |a and b| / |a or b| of two sorted sets that are not both empty."""
    shared = native.shared(a, b)
    return shared / (len(a) + len(b) - shared)


class MinHash:
    """MinHash signatures (Broder 1997) by fixed pseudo-random permutations of 32-bit hashes."""

    def __init__(self, num_hashes: int, ngrams: int) -> None:
        generator = np.random.Generator(np.random.PCG64(0))
        numbers = generator.bit_generator.random_raw(2 * num_hashes)  # the same in every version
        self._factors = (numbers[:num_hashes].astype(np.uint32)) | np.uint32(1)
        self._terms = numbers[num_hashes:].astype(np.uint32)
        self._ngrams = ngrams

    def __call__(self, texts: list[str]) -> UInt32[np.ndarray, "texts num_hashes"]:
        """Return a signature for each text; of one without words it is all ones."""
        words = [normalize(text) for text in texts]
        return native.signatures(words, self._ngrams, self._factors, self._terms)


def band_keys(
    signatures: UInt32[np.ndarray, "texts num_hashes"], num_bands: int
) -> UInt64[np.ndarray, "texts num_bands"]:
    """Return a hash of each band of each signature: equal bands at one place have equal keys."""
    rows = signatures.shape[1] // num_bands
    factors = np.random.PCG64(1).random_raw(rows) | np.uint64(1)
    bands = signatures.reshape(len(signatures), num_bands, rows).astype(np.uint64)
    keys = (bands * factors).sum(axis=2, dtype=np.uint64)
    keys += np.arange(num_bands, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return keys ^ (keys >> np.uint64(32))
