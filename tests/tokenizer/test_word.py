"""The word-level baseline: what it keeps, what it loses."""

import pytest

from lmlab.errors import UserError
from lmlab.tokenizer import WordTokenizer


def test_most_frequent_words_are_kept() -> None:
    tokenizer = WordTokenizer.train(["the cat and", " the dog", " the"], 3)
    # " the" twice, the others once: the greater one first
    assert tokenizer.words == ["<unk>", " the", "the"]
    assert tokenizer.encode("the the cat") == [2, 1, 0]
    assert tokenizer.decode([2, 1, 0]) == "the the<unk>"


def test_coverage() -> None:
    tokenizer = WordTokenizer(["a", " b"])
    coverage = tokenizer.coverage("a b c b")
    assert (coverage.words, coverage.unknown, coverage.unknown_share) == (4, 1, 0.25)
    assert coverage.bytes_per_token == 7 / 4
    assert tokenizer.coverage("").unknown_share == 0.0


def test_errors() -> None:
    with pytest.raises(UserError, match="too small"):
        WordTokenizer.train(["a"], 0)
    with pytest.raises(UserError, match="given twice"):
        WordTokenizer(["a", "a"])
    with pytest.raises(UserError, match="id 3 at position 0"):
        WordTokenizer(["a", "b"]).decode([3])
