"""The oracle itself: the worked example, and its quick form against its plain one."""

import itertools
from itertools import islice

import pytest
import tokenizers
from hypothesis import given
from tokenizer_strategies import patterns, special_tokens, texts

from lmlab.errors import UserError
from lmlab.tokenizer import reference
from lmlab.tokenizer.reference import Pair, Word

# From Sennrich et al. 2016, with ties broken in favour of the greater pair.
LOW_LOWER = " ".join(["low"] * 5 + ["lower"] * 2 + ["widest"] * 3 + ["newest"] * 6)
LOW_LOWER_MERGES = [
    "s t",
    "e st",
    "o w",
    "l ow",
    "w est",
    "n e",
    "ne west",
    "w i",
    "wi d",
    "wid est",
    "low e",
    "lowe r",
]


def test_worked_example() -> None:
    vocab, merges = reference.train_bpe(LOW_LOWER, 1000, pattern=r"\S+|\s")
    assert [f"{a.decode()} {b.decode()}" for a, b in merges] == LOW_LOWER_MERGES
    assert vocab[256] == b"st"
    assert len(vocab) == 256 + 12  # it stops when no pair is left


@given(texts, special_tokens, patterns)
def test_incremental_training_equals_recounting(
    text: str, special_tokens: list[str], pattern: str
) -> None:
    counts = reference.count_pretokens(text, special_tokens, pattern)
    assert list(islice(reference.learn(counts), 40)) == list(
        islice(reference.learn_by_recounting(counts), 40)
    )


def apply_in_order(pretoken: bytes, merges: list[Pair]) -> Word:
    """The definition word for word: each merge in the order of creation, over the whole word."""
    word = reference.as_bytes(pretoken)
    for pair in merges:
        word = reference.merge_pair(word, pair)
    return word


@given(texts, texts, patterns)
def test_encoding_applies_merges_in_the_order_of_creation(
    training: str, text: str, pattern: str
) -> None:
    _, merges = reference.train_bpe(training + text[:10], 320, pattern=pattern)
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    for pretoken in reference.count_pretokens(text, [], pattern):
        assert reference.encode_pretoken(pretoken, ranks) == apply_in_order(pretoken, merges)


def test_special_tokens_add_no_counts_and_stop_merges() -> None:
    _, merges = reference.train_bpe("xyxy<|x|>xyab<|x|>ab<|x|>", 300, ["<|x|>"])
    assert merges[0] == (b"x", b"y")
    made = {a + b for a, b in merges}
    assert not any(b"|" in token or b"bx" in token for token in made)


def test_ids_are_bytes_then_merges_then_special_tokens() -> None:
    vocab, merges = reference.train_bpe("aaa bbb", 260, ["<|b|>", "<|a|>"])
    assert vocab[97] == b"a"
    assert vocab[256] == b"".join(merges[0])
    assert [vocab[258], vocab[259]] == [b"<|b|>", b"<|a|>"]


def test_vocabulary_too_small() -> None:
    with pytest.raises(UserError, match=r"vocab_size 257 is too small.*at least 258"):
        reference.train_bpe("text", 257, ["<|a|>", "<|b|>"])
    vocab, merges = reference.train_bpe("text", 258, ["<|a|>", "<|b|>"])
    assert not merges
    assert len(vocab) == 258


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [2, 1, 0], [0, 2, 1]])
def test_merges_in_an_order_that_no_training_makes_equal_tokenizers(order: list[int]) -> None:
    made = [(b"a", b"c"), (b"ac", b"a"), (b"a", b"a")]
    merges = [made[i] for i in order]
    vocab = {token: i for i, token in enumerate(["a", "c", "ac", "aca", "aa"])}
    text_merges = [(left.decode(), right.decode()) for left, right in merges]
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, text_merges))
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    for letters in itertools.product("ac", repeat=6):
        word = "".join(letters)
        ours = [token.decode() for token in reference.encode_pretoken(word.encode(), ranks)]
        assert ours == theirs.encode(word).tokens
