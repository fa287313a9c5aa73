"""train_bpe against reference.py, for every form of input, any cut and any number of threads."""

import collections
import gzip
from itertools import islice
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from test_reference import LOW_LOWER, LOW_LOWER_MERGES, apply_in_order
from tokenizer_strategies import PIECES, cuts, patterns, special_tokens, texts

from lmlab.errors import DataError, UserError
from lmlab.tokenizer import Tokenizer, reference, train_bpe
from lmlab.tokenizer.native import Counter

END = ["<|endoftext|>"]


def test_worked_example() -> None:
    _, merges = train_bpe(iter([LOW_LOWER]), 1000, pattern=r"\S+|\s")
    assert [f"{a.decode()} {b.decode()}" for a, b in merges] == LOW_LOWER_MERGES


@given(
    text=texts,
    specials=special_tokens,
    pattern=st.one_of(patterns, st.just(r"\w+|\s+|[^\w\s]+")),
    threads=st.integers(1, 4),
    data=st.data(),
)
@settings(max_examples=300)
def test_equals_reference(
    text: str, specials: list[str], pattern: str, threads: int, data: st.DataObject
) -> None:
    expected = reference.train_bpe(text, 300, specials, pattern=pattern)
    pieces = data.draw(cuts(text))
    assert train_bpe(iter(pieces), 300, specials, pattern=pattern, num_threads=threads) == expected
    encoded = text.encode()
    places = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=5)))
    chunks = [encoded[a:b] for a, b in zip([0, *places], [*places, len(encoded)], strict=True)]
    assert train_bpe(iter(chunks), 300, specials, pattern=pattern) == expected


@given(text=texts, specials=special_tokens, pattern=patterns, chunk=st.integers(1, 64))
@settings(max_examples=300)
def test_counts_equal_reference_for_any_chunk_size(
    text: str, specials: list[str], pattern: str, chunk: int
) -> None:
    counter = Counter(
        pattern,  # type: ignore[arg-type]
        [token.encode() for token in specials],
        num_threads=2,
        chunk_bytes=chunk,
    )
    counter.add((text * 3).encode())
    counter.end_text()
    assert counter.counts() == reference.count_pretokens(text * 3, specials, pattern)


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "o200k"])
def test_larger_text_equals_reference(corpus: str, pattern: str) -> None:
    expected = reference.train_bpe(corpus, 900, END, pattern=pattern)
    assert train_bpe(iter([corpus]), 900, END, pattern=pattern) == expected


def test_files(corpus: str, tmp_path: Path) -> None:
    texts = [corpus[:9000], corpus[9000:], "<|endoftext|>ab" * 40]
    paths = [tmp_path / "a.txt", tmp_path / "b.gz", tmp_path / "c.zst"]
    paths[0].write_bytes(texts[0].encode())
    paths[1].write_bytes(gzip.compress(texts[1].encode()))
    paths[2].write_bytes(zstandard.compress(texts[2].encode()))
    # each file is a text of its own
    counts: collections.Counter[bytes] = collections.Counter()
    for text in texts:
        counts += reference.count_pretokens(text, END, "gpt2")
    expected = list(islice(reference.learn(counts), 243))
    assert train_bpe(paths, 500, END)[1] == expected
    assert train_bpe([str(path) for path in paths], 500, END)[1] == expected
    assert train_bpe(paths[0], 500, END) == reference.train_bpe(texts[0], 500, END)
    assert train_bpe(str(paths[2]), 500, END) == reference.train_bpe(texts[2], 500, END)


@pytest.mark.parametrize("word", ["a", "ab", "aab"])
def test_one_long_pretoken(word: str) -> None:
    text = word * (120_000 // len(word))  # seen in OpenWebText; runs of equal pairs
    vocab, merges = train_bpe(iter([text]), 1000)
    assert (vocab, merges) == reference.train_bpe(text, 1000)
    tokenizer = Tokenizer(vocab, merges)
    tokens = [vocab[i] for i in tokenizer.encode(text)]
    assert tokens == list(apply_in_order(text.encode(), merges))


def test_ties_go_to_the_greater_pair() -> None:
    _, merges = train_bpe(iter(["ab ba é"]), 257)
    assert merges == [(b"\xc3", b"\xa9")]  # every pair occurs once


def test_progress_is_shown_when_asked_for(
    corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text(corpus)
    train_bpe(path, 300)
    assert capsys.readouterr().err == ""
    train_bpe(path, 300, progress=True)
    bars = capsys.readouterr().err
    assert "read: 100%" in bars
    assert "merge: 100%" in bars


def test_training_stops_when_no_pair_is_left() -> None:
    vocab, merges = train_bpe(iter(["abc"]), 1000, END)
    assert len(merges) == 2
    assert vocab[258] == b"<|endoftext|>"
    assert train_bpe(iter([]), 1000)[1] == []


# Bad input


def test_small_vocabulary_and_bad_special_tokens() -> None:
    with pytest.raises(UserError, match=r"vocab_size 256 is too small.* at least 257"):
        train_bpe(iter(["a"]), 256, END)
    with pytest.raises(UserError, match="given twice"):
        train_bpe(iter(["a"]), 300, [*END, *END])
    with pytest.raises(UserError, match="empty"):
        train_bpe(iter(["a"]), 300, [""])


@pytest.mark.parametrize("pattern", ["gpt2", r"(?s)\w+|."])
@pytest.mark.parametrize("offset", [0, 3, 3_000_000])
def test_invalid_utf8_is_located(tmp_path: Path, pattern: str, offset: int) -> None:
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text("some words")
    bad.write_bytes(b"ab " * (offset // 3) + b"\xe2\x82 and more")
    for paths in ([bad, good], [good, bad]):
        with pytest.raises(DataError, match=f"bad.txt: invalid UTF-8 at byte {offset};"):
            train_bpe(paths, 300, pattern=pattern)
    _, merges = train_bpe(bad, 300, pattern=pattern, errors="replace")
    text = bad.read_bytes().decode(errors="replace")
    assert merges == reference.train_bpe(text, 300, pattern=pattern)[1]
    with pytest.raises(DataError, match=f"text: invalid UTF-8 at byte {offset};"):
        train_bpe(iter([bad.read_bytes()]), 300, pattern=pattern)


def test_text_that_is_no_unicode() -> None:
    with pytest.raises(DataError, match="lone surrogate"):
        train_bpe(iter(["a\ud800"]), 300)


def test_pattern_that_does_not_cover_the_text() -> None:
    with pytest.raises(UserError, match="does not cover the text"):
        train_bpe(iter(["".join(PIECES)]), 300, pattern=r"\w+")
    with pytest.raises(UserError, match="neither one of"):
        train_bpe(iter(["a"]), 300, pattern="(")


def test_unreadable_files(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.txt", tmp_path / "missing.gz"):
        with pytest.raises(DataError, match=f"{path.name}: cannot be read"):
            train_bpe(path, 300)
