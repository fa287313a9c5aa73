"""Word-level tokens: the baseline that shows what byte-level BPE is for.

Words that training did not keep become `<unk>`, which no decoder brings back.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from lmlab.errors import DataError, UserError
from lmlab.tokenizer.pretokenize import split_pretokens

UNKNOWN = "<unk>"


@dataclass(frozen=True)
class Coverage:
    """How well a word vocabulary fits a text."""

    words: int
    unknown: int
    bytes_per_token: float

    @property
    def unknown_share(self) -> float:
        """The share of words, between 0 and 1, that are out of vocabulary."""
        return self.unknown / self.words if self.words else 0.0


class WordTokenizer:
    """A token is a whole pretoken of `pattern`; id 0 stands for every word not kept."""

    def __init__(self, words: Iterable[str], pattern: str = "gpt2") -> None:
        self.words = [UNKNOWN, *words]
        self.pattern = pattern
        self._ids = {word: i for i, word in enumerate(self.words) if i}
        if len(self._ids) != len(self.words) - 1:
            raise UserError("a word is given twice")

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, *, pattern: str = "gpt2") -> Self:
        """Keep the `vocab_size` - 1 most frequent words, the greater one first among equals."""
        if vocab_size < 1:
            raise UserError(f"vocab_size {vocab_size} is too small: {UNKNOWN} alone needs 1")
        counts = Counter(word for text in texts for word in split_pretokens(text, pattern))
        ranked = sorted(counts, key=lambda word: (counts[word], word), reverse=True)
        return cls(ranked[: vocab_size - 1], pattern)

    @property
    def vocab_size(self) -> int:
        """The number of words kept, and one for `<unk>`."""
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """The id of each word, 0 where it is out of vocabulary."""
        return [self._ids.get(word, 0) for word in split_pretokens(text, self.pattern)]

    def decode(self, ids: Iterable[int]) -> str:
        """The words of `ids`; an unknown word reads `<unk>`."""
        words: list[str] = []
        for position, i in enumerate(ids):
            if not 0 <= i < self.vocab_size:
                raise DataError(f"id {i} at position {position} is not in 0..{self.vocab_size - 1}")
            words.append(self.words[i])
        return "".join(words)

    def coverage(self, text: str) -> Coverage:
        """How many words of `text` are out of vocabulary, and its bytes per token."""
        ids = self.encode(text)
        size = len(text.encode())
        return Coverage(len(ids), ids.count(0), size / len(ids) if ids else 0.0)
