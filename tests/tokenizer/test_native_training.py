"""The native counter and trainer against the plain Python reference."""

import itertools
import random
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_strategies import cuts, patterns, special_tokens, texts

from lmlab.tokenizer import reference
from lmlab.tokenizer.native import Counter, Errors, InvalidUtf8, PatternName

CHUNKS = st.sampled_from([1, 2, 3, 7, 20, 100, 1 << 19])
THREADS = st.sampled_from([1, 2, 3])


def counter_of(
    pieces: Sequence[bytes],
    pattern: PatternName,
    specials: Sequence[str] = (),
    *,
    num_threads: int = 2,
    chunk_bytes: int = 1 << 19,
    errors: Errors = "strict",
) -> Counter:
    counter = Counter(
        pattern,
        [token.encode() for token in specials],
        num_threads=num_threads,
        chunk_bytes=chunk_bytes,
        errors=errors,
    )
    for piece in pieces:
        counter.add(piece)
    return counter


def of_words(words: dict[bytes, int]) -> Counter:
    counter = Counter(None)
    for word, count in words.items():
        counter.add_pretokens([word] * count)
    return counter


def test_worked_example() -> None:
    words = {b"low": 5, b"lower": 2, b"widest": 3, b"newest": 6}
    merges = of_words(words).train(12)
    assert b", ".join(a + b" " + b for a, b in merges) == (
        b"s t, e st, o w, l ow, w est, n e, ne west, w i, wi d, wid est, low e, lowe r"
    )


@given(data=st.data(), text=texts, specials=special_tokens, pattern=patterns)
def test_counts_for_any_cut_chunk_and_thread(
    data: st.DataObject, text: str, specials: list[str], pattern: PatternName
) -> None:
    pieces = [piece.encode() for piece in data.draw(cuts(text))]
    counter = counter_of(
        pieces, pattern, specials, num_threads=data.draw(THREADS), chunk_bytes=data.draw(CHUNKS)
    )
    assert counter.counts() == reference.count_pretokens(text, specials, pattern)


@pytest.mark.parametrize("chunk_bytes", [1, 5, 64, 1000, 1 << 16])
@pytest.mark.parametrize(
    "text",
    ["1" * 4000, "中" * 2000, "Ab" * 2000, "'s" * 2000, " \n" * 2000, "a" * 5000, "//\n" * 999],
    ids=["digits", "letters", "camel", "contractions", "spaces", "one word", "signs"],
)
@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "o200k"])
def test_text_without_a_place_to_cut(pattern: PatternName, text: str, chunk_bytes: int) -> None:
    counter = counter_of([text.encode()], pattern, chunk_bytes=chunk_bytes)
    assert counter.counts() == reference.count_pretokens(text, (), pattern)


@given(
    words=st.dictionaries(st.text("ab", min_size=1, max_size=12), st.integers(1, 9), max_size=9),
    num_merges=st.integers(0, 60),
)
def test_runs_and_ties(words: dict[str, int], num_merges: int) -> None:
    counts = {word.encode(): count for word, count in words.items()}
    expected = list(itertools.islice(reference.learn_by_recounting(counts), num_merges))
    assert of_words(counts).train(num_merges) == expected


@given(data=st.data(), text=texts, specials=special_tokens, pattern=patterns)
def test_merges(data: st.DataObject, text: str, specials: list[str], pattern: PatternName) -> None:
    pieces = [piece.encode() for piece in data.draw(cuts(text))]
    counter = counter_of(
        pieces, pattern, specials, num_threads=data.draw(THREADS), chunk_bytes=data.draw(CHUNKS)
    )
    counts = reference.count_pretokens(text, specials, pattern)
    assert counter.train(50) == list(itertools.islice(reference.learn(counts), 50))


@pytest.mark.parametrize("num_merges", [300, 900, 1500, 100_000])
@pytest.mark.parametrize("steepness", [0.3, 1.2])
def test_several_epochs(num_merges: int, steepness: float) -> None:
    """Enough words that thresholds are lowered more than once, also with many tokens."""
    dice = random.Random(steepness)
    counts = {
        "".join(dice.choices("abcdefgh", k=dice.randint(2, 9))).encode(): int(
            1 + 3000 / (1 + rank) ** steepness
        )
        for rank in range(900)
    }
    merges = of_words(counts).train(num_merges)
    assert merges == list(itertools.islice(reference.learn(counts), num_merges))


def test_more_threads_than_words() -> None:
    counts = {b"banana": 3, b"bandana": 2, b"an": 5}
    counter = Counter(None, num_threads=200)
    counter.add_pretokens([word for word, count in counts.items() for _ in range(count)])
    assert counter.train(50) == list(reference.learn(counts))


def test_wide_ids() -> None:
    """More than 65,535 merges are possible: the words are laid out in 32 bits."""
    dice = random.Random(0)
    counts = {b"banana": 3, b"bandana": 2, b"an": 5}
    counts |= {dice.randbytes(dice.randint(50, 80)): 1 for _ in range(1300)}
    merges = of_words(counts).train(100_000)
    assert merges[:300] == list(itertools.islice(reference.learn(counts), 300))
    assert len(merges) > 65_536
    made = {left + right for left, right in merges}
    assert len(merges) > 65_536
    assert counts.keys() <= made  # every word is merged as a whole in the end


def test_more_merges_asked_for_than_memory_holds() -> None:
    counts = {b"banana": 3, b"bandana": 2, b"an": 5}
    assert of_words(counts).train(2**64 - 1) == list(reference.learn(counts))


def test_counts_above_32_bits_are_kept() -> None:
    counter = Counter("gpt2")
    counter.add_pretokens([b"ab"] * 3)
    counter.add(b" x" * 1_000_000)
    assert counter.counts() == {b"ab": 3, b" x": 1_000_000}


@pytest.mark.parametrize("word", [b"a" * 1_000_000, b"ab" * 250_000, bytes(300_000)])
def test_very_long_pretoken(word: bytes) -> None:
    begun = time.monotonic()
    merges = of_words({word: 1}).train(50)
    assert time.monotonic() - begun < 60  # quadratic work would take hours
    assert merges[0] == (word[0:1], word[1:2])
    assert len(merges) < 50


def test_distinct_words_of_every_length() -> None:
    words = {bytes(dice) * length: length for length in range(1, 70) for dice in (b"x", b"\0")}
    assert of_words(words).counts() == words


def test_more_words_than_any_cache_holds() -> None:
    text = " ".join(map(str, range(150_000))) + " " + " ".join(map(str, range(150_000)))
    counts = counter_of([text.encode()], "gpt2").counts()
    assert len(counts) == 150_001  # the first has no space before it
    assert counts[b" 77"] == 2
    assert sum(counts.values()) == 300_000


BAD = [b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc0\x80", b"\x80",
       b"\xf0\x9f\x98", b"\xe0\x80\x80", b"\xf4\x90\x80\x80"]  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("before", [b"", b"abc ", "é".encode() * 40, b"word " * 300])
@pytest.mark.parametrize("after", [b"", b" more", "é".encode()])
def test_invalid_utf8_is_located_or_replaced(bad: bytes, before: bytes, after: bytes) -> None:
    data = before + bad + after
    for size in (1, 3, len(data)):
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        with pytest.raises(InvalidUtf8, match=f"^invalid UTF-8 at byte {len(before)}$"):
            counter_of(pieces, "gpt2", chunk_bytes=10).counts()
        counter = counter_of(pieces, "gpt2", chunk_bytes=10, errors="replace")
        replaced = data.decode(errors="replace")
        assert counter.counts() == reference.count_pretokens(replaced, (), "gpt2")


@given(data=st.binary(max_size=60), size=st.integers(1, 9), chunk=CHUNKS)
def test_arbitrary_bytes_are_replaced_as_python_does(data: bytes, size: int, chunk: int) -> None:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    counter = counter_of(pieces, "gpt2", chunk_bytes=chunk, errors="replace")
    replaced = data.decode(errors="replace")
    assert counter.counts() == reference.count_pretokens(replaced, (), "gpt2")


def test_texts_do_not_run_into_each_other() -> None:
    counter = Counter("gpt2", [b"<|x|>"])
    for piece in (b"one", b"two <|", b"x|> three"):
        counter.add(piece)
        counter.end_text()
    assert counter.counts() == {
        b"one": 1, b"two": 1, b" <|": 1, b"x": 1, b"|>": 1, b" three": 1
    }  # fmt: skip


def test_counter_is_used_up_by_training() -> None:
    counter = of_words({b"ab": 1})
    counter.train(1)
    with pytest.raises(ValueError, match="given its counts away"):
        counter.add(b"more")
