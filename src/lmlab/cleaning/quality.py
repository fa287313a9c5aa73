"""Rules on words, lines and repetition: Gopher's and FineWeb's, with datatrove's definitions."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from lmlab.cleaning import native
from lmlab.cleaning.config import FineWebConfig, GopherConfig, RepetitionConfig, StepBase
from lmlab.cleaning.document import Criterion, Document, decide
from lmlab.cleaning.punctuation import TERMINAL

MOST_SPANS = 1000
"""Offending parts that a removed document keeps."""

Spans = Iterable[tuple[int, int]]


class RuleStep(ABC):
    """A step that scores the text and decides by its criteria."""

    def __init__(self, config: StepBase) -> None:
        self.name = config.step_name
        self.criteria: Sequence[Criterion] = config.criteria()

    @abstractmethod
    def score(self, text: str) -> dict[str, float]:
        """Return name -> score."""

    @abstractmethod
    def offending(self, text: str, reason: str) -> Spans:
        """Return the parts of the text that a criterion counts; nothing where it counts all."""

    def __call__(self, documents: Sequence[Document]) -> list[Document]:
        """Score each document and remove those that fail a criterion."""
        for document in documents:
            scores = self.score(document.text)
            document.scores.update({f"{self.name}.{key}": value for key, value in scores.items()})
            failed = decide(self.name, self.criteria, document)
            if failed is not None and document.removal is not None:
                parts = self.offending(document.text, failed.reason)
                spans = tuple(part for part, _ in zip(parts, range(MOST_SPANS), strict=False))
                document.removal = replace(document.removal, spans=spans)
        return list(documents)


def matches(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    """Yield where a pattern matches."""
    return (match.span() for match in pattern.finditer(text))


def lines_where(text: str, test: Callable[[str], bool]) -> Iterator[tuple[int, int]]:
    """Yield the lines of `str.splitlines` that pass a test."""
    start = 0
    for line in text.splitlines(keepends=True):
        content = line.splitlines()[0]
        if test(content):
            yield start, start + len(content)
        start += len(line)


class Gopher(RuleStep):
    """Gopher's quality rules (Rae et al. 2021, arXiv:2112.11446, appendix A)."""

    def __init__(self, config: GopherConfig) -> None:
        super().__init__(config)
        self._statistics = native.Statistics(config.stop_words)

    def score(self, text: str) -> dict[str, float]:
        """Return words, mean_word_length, the ratios of signs and lines, and stop_words."""
        return self._statistics.gopher(text)

    def offending(self, text: str, reason: str) -> Spans:
        """Return hash signs, ellipses, such lines, or words without a letter."""
        match reason:
            case "hash_ratio":
                return matches(re.compile("#"), text)
            case "ellipsis_ratio":
                return matches(re.compile(r"\.\.\.|…"), text)
            case "bullet_lines":
                return lines_where(text, lambda line: line.lstrip().startswith(("•", "-")))
            case "ellipsis_lines":
                return lines_where(text, lambda line: line.rstrip().endswith(("...", "…")))
            case "alphabetic_words":
                return (
                    (start, end)
                    for start, end in native.word_spans(text)
                    if not any(map(str.isalpha, text[start:end]))
                )
        return ()


def gopher_quality_filter(text: str) -> bool:
    """Return whether a text passes four of Gopher's rules, as in Stanford CS336.

    50 to 100,000 words, a mean word length of 3 to 10 characters, at most 30 % of lines that end in
    an ellipsis, at least 80 % of words with a letter.
    """
    scores = native.Statistics().gopher(text)
    return (
        50 <= scores["words"] <= 100_000
        and 3 <= scores.get("mean_word_length", 3) <= 10
        and scores["ellipsis_lines"] <= 0.3
        and scores["alphabetic_words"] >= 0.8
    )


class Repetition(RuleStep):
    """Gopher's repetition rules (Rae et al. 2021, arXiv:2112.11446, table A1)."""

    def __init__(self, config: RepetitionConfig) -> None:
        super().__init__(config)
        self._top = list(config.top_ngrams)
        self._duplicate = list(config.duplicate_ngrams)

    def score(self, text: str) -> dict[str, float]:
        """Return the shares of repeated lines, paragraphs and n-grams."""
        return native.repetition(text, self._top, self._duplicate)

    def offending(self, text: str, reason: str) -> Spans:
        """Return the repeated lines, paragraphs or n-grams."""
        kind, _, n = reason.rpartition("_")
        if kind == "top_ngram":
            return native.top_ngram(text, int(n))
        if kind == "duplicate_ngram":
            return native.duplicate_ngrams(text, int(n))
        if reason == "characters":
            return ()
        return native.duplicate_parts(text, paragraphs="paragraph" in reason)


class FineWeb(RuleStep):
    """FineWeb's quality rules (Penedo et al. 2024, arXiv:2406.17557, section 3.6)."""

    def __init__(self, config: FineWebConfig) -> None:
        super().__init__(config)
        self._statistics = native.Statistics()
        self._short = config.short_line_length

    def score(self, text: str) -> dict[str, float]:
        """Return the shares of lines by their ends, lengths and repetition, and newline_ratio."""
        return self._statistics.fineweb(text, self._short)

    def offending(self, text: str, reason: str) -> Spans:
        """Return the lines without punctuation, the short or the repeated ones."""
        if reason == "duplicate_line_characters":
            spans: Spans = native.duplicate_parts(text, paragraphs=False)
        elif reason == "punctuated_lines":
            terminal = tuple(TERMINAL)
            spans = (part for part in _lines(text) if not text[slice(*part)].endswith(terminal))
        elif reason == "short_lines":
            spans = (part for part in _lines(text) if part[1] - part[0] <= self._short)
        else:
            return ()
        return (part for part in spans if text[slice(*part)].strip())


def _lines(text: str) -> Iterator[tuple[int, int]]:
    return matches(re.compile(r"[^\n]+"), text)
