"""Documents that share n-grams of words with evaluation texts (Brown et al. 2020, appendix C)."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from lmlab.cleaning.document import Document, decide
from lmlab.cleaning.hashing import ngram_hashes, normalize
from lmlab.cleaning.native import Hashes
from lmlab.cleaning.pieces import Problem
from lmlab.cleaning.pipeline_config import DecontaminateConfig, ReadConfig
from lmlab.cleaning.reading import read_documents
from lmlab.data.paths import find_files
from lmlab.errors import ConfigError, DataError

MOST_SPANS = 1000
_LARGEST = 1 << 30
_WORD = re.compile(r"\S+")


class Decontaminate:
    """Score documents by how many different n-grams they share with evaluation texts."""

    def __init__(self, config: DecontaminateConfig) -> None:
        self.name = config.step_name
        self._n, self._criteria = config.ngrams, config.criteria()
        self._index = _index(config)

    def __call__(self, documents: Sequence[Document]) -> list[Document]:
        """Score each document, and remove those that share too much."""
        for document in documents:
            hashes = ngram_hashes(document.text, self._n)
            found = self._is_known(hashes)
            document.scores[f"{self.name}.shared_ngrams"] = len(np.unique(hashes[found]))
            if decide(self.name, self._criteria, document) and document.removal is not None:
                spans = self._spans(document.text, np.flatnonzero(found)[:MOST_SPANS].tolist())
                document.removal = replace(document.removal, spans=spans)
        return list(documents)

    def _is_known(self, hashes: Hashes) -> np.ndarray:
        places = np.minimum(np.searchsorted(self._index, hashes), len(self._index) - 1)
        known: np.ndarray = self._index[places] == hashes
        return known

    def _spans(self, text: str, ngrams: list[int]) -> tuple[tuple[int, int], ...]:
        """Return where n-grams, known by their first word, are in the text, joined.

        What stands between white space is marked as a whole, also where each letter is a word.
        """
        words = [m.span() for m in _WORD.finditer(text) for _ in normalize(m[0]).split()]
        spans: list[tuple[int, int]] = []
        for first in ngrams:
            start, end = words[first][0], words[min(first + self._n, len(words)) - 1][1]
            if spans and start <= spans[-1][1]:
                start = spans.pop()[0]
            spans.append((start, end))
        return tuple(spans)


def _index(config: DecontaminateConfig) -> Hashes:
    """Return the sorted n-grams of all evaluation texts that have n words or more."""
    if not config.paths:
        raise ConfigError("cleaning.steps.decontaminate.paths", "is empty; name evaluation files")
    read = ReadConfig(field=config.field, separator=None, max_document_bytes=_LARGEST)
    found: list[Hashes] = []
    for path in find_files("cleaning.steps.decontaminate.paths", config.paths, Path()).paths:
        for document in read_documents(path, read, partial(_fail, path)):
            if document.raw is not None:
                raise DataError(f"{document.id}: is HTML; give evaluation texts as text")
            if len(normalize(document.text).split()) >= config.ngrams:
                found.append(ngram_hashes(document.text, config.ngrams))
    if not found:
        raise DataError(
            f"cleaning.steps.decontaminate.paths: no text has {config.ngrams} words, the length of "
            "an n-gram; lower cleaning.steps.decontaminate.ngrams, or set its field"
        )
    index: Hashes = np.unique(np.concatenate(found))
    return index


def _fail(path: Path, problem: Problem) -> None:
    reason = problem.reason.replace("set read.field", "set the step's field")
    raise DataError(f"{path}:{problem.offset}: {reason}")
