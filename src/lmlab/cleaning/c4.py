"""Line and page rules of C4 (Raffel et al. 2020, arXiv:1910.10683, section 2.2)."""

import re
from collections.abc import Sequence
from dataclasses import replace

from lmlab.cleaning.config import C4Config
from lmlab.cleaning.document import Document, decide
from lmlab.cleaning.native import Statistics
from lmlab.cleaning.quality import MOST_SPANS, matches

_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_POLICY = re.compile(
    "terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies"
)
_OFFENDING = {
    "lorem_ipsum": re.compile("lorem ipsum", re.IGNORECASE),
    "curly_brackets": re.compile(r"\{"),
}


class C4:
    """Drops lines, and removes pages by what is in them; datatrove's definitions.

    Scores: `sentences` in the lines that are left, `dropped_lines`, and the lines with
    `lorem_ipsum` or `curly_brackets`. A removed document keeps its text.
    """

    def __init__(self, config: C4Config) -> None:
        self.name = config.step_name
        self.criteria = config.criteria()
        self._config = config
        self._statistics = Statistics()

    def clean(self, text: str) -> tuple[str, dict[str, float]]:
        """Return the text of the lines that are left, and the scores."""
        kept: list[str] = []
        counts = {"sentences": 0, "dropped_lines": 0, "lorem_ipsum": 0, "curly_brackets": 0}
        for whole in text.splitlines():
            line = self._line(whole.strip())
            lower = "" if line is None else line.lower()
            if line is None or self._about_the_site(lower, counts):
                counts["dropped_lines"] += 1
            elif self._config.refuse_curly_brackets and "{" in line:
                counts["curly_brackets"] += 1
            elif self._config.drop_policy_lines and _POLICY.search(lower):
                counts["dropped_lines"] += 1
            else:
                counts["sentences"] += self._statistics.sentences(line)
                kept.append(line)
        return "\n".join(kept).strip(), {name: float(count) for name, count in counts.items()}

    def _line(self, line: str) -> str | None:
        """Return the line without citation marks; None when its form drops it."""
        config = self._config
        words = line.split()
        if config.max_word_length is not None and any(
            len(word) > config.max_word_length for word in words
        ):
            return None
        if config.remove_citations:
            line = _CITATION.sub("", line)
        if config.terminal_punctuation and (
            not line.endswith((".", "?", "!", '"', "'")) or line.endswith("...")
        ):
            return None
        return None if len(words) < config.min_words_per_line else line

    def _about_the_site(self, lower: str, counts: dict[str, int]) -> bool:
        """Return whether the line is placeholder text, which is counted, or about JavaScript."""
        if self._config.refuse_lorem_ipsum and "lorem ipsum" in lower:
            counts["lorem_ipsum"] += 1
            return True
        return self._config.drop_javascript_lines and "javascript" in lower

    def __call__(self, documents: Sequence[Document]) -> list[Document]:
        """Drop lines of each document, or remove it."""
        for document in documents:
            text, scores = self.clean(document.text)
            document.scores.update({f"{self.name}.{key}": value for key, value in scores.items()})
            failed = decide(self.name, self.criteria, document)
            if failed is None or document.removal is None:
                document.text = text
            elif failed.reason in _OFFENDING:
                found = matches(_OFFENDING[failed.reason], document.text)
                spans = tuple(span for span, _ in zip(found, range(MOST_SPANS), strict=False))
                document.removal = replace(document.removal, spans=spans)
        return list(documents)
