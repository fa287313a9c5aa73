"""Tokenizer against reference.py, tiktoken and tokenizers; any cut, any file, any bad id."""

import gzip
import itertools
import pickle
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken
import tokenizers
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_strategies import PIECES, cuts, patterns, special_tokens, texts, trained

from lmlab.errors import DataError, UserError
from lmlab.tokenizer import reference
from lmlab.tokenizer.bpe import Tokenizer, byte_tokenizer
from lmlab.tokenizer.pretokenize import PATTERNS

WORDS = r"\w+|\s+|[^\w\s]+"  # a pattern that is not native


@pytest.fixture(scope="module", params=["gpt2", "cl100k", "o200k", WORDS])
def of_pattern(request: pytest.FixtureRequest, corpus: str) -> Tokenizer:
    return trained(corpus, 600, ["<|a|>", "<|a|>x"], request.param)


def by_reference(tokenizer: Tokenizer, text: str) -> list[int]:
    return reference.encode(
        text,
        tokenizer.vocab,
        tokenizer.merges,
        list(tokenizer.special_tokens),
        pattern=tokenizer.pattern,
    )


@given(text=texts, training=texts, specials=special_tokens, pattern=patterns)
def test_equals_reference(text: str, training: str, specials: list[str], pattern: str) -> None:
    tokenizer = trained(training + text, 300, specials, pattern)
    ids = tokenizer.encode(text)
    assert ids == by_reference(tokenizer, text)
    assert tokenizer.decode(ids) == text


@given(data=st.data(), text=texts)
@settings(max_examples=300)
def test_any_form_of_input_gives_the_same_ids(
    of_pattern: Tokenizer, data: st.DataObject, text: str
) -> None:
    expected = by_reference(of_pattern, text)
    pieces = data.draw(cuts(text))
    assert of_pattern.encode(text) == expected
    assert of_pattern.encode_array(text).tolist() == expected
    assert of_pattern.encode_array(text.encode()).tolist() == expected
    assert list(of_pattern.encode_iterable(pieces)) == expected
    assert list(of_pattern.encode_iterable(text)) == expected  # one character at a time
    batch = of_pattern.encode_batch([text, "", text])
    assert [ids.tolist() for ids in batch] == [expected, [], expected]
    assert of_pattern.decode(expected) == text
    assert of_pattern.decode_bytes(np.array(expected, np.int64)) == text.encode()


def test_every_cut_in_two(of_pattern: Tokenizer) -> None:
    text = "".join(PIECES) + "I'll  \n  go\r\n\r\n<|a|>x<|a|> <|a" + "  "
    expected = by_reference(of_pattern, text)
    for cut in range(len(text) + 1):
        assert list(of_pattern.encode_iterable([text[:cut], text[cut:]])) == expected


def test_iterable_is_lazy_and_bounded(small: Tokenizer) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        for taken in itertools.count(1):  # noqa: B007
            yield "some words and more of them\n" * 10

    ids = small.encode_iterable(endless())
    first = list(itertools.islice(ids, 10))
    assert first == small.encode("some words and more of them\n" * 10)[:10]
    assert taken < 1000


def as_tiktoken(tokenizer: Tokenizer) -> tiktoken.Encoding:
    special = set(tokenizer.special_tokens.values())
    return tiktoken.Encoding(
        "ours",
        pat_str=PATTERNS[tokenizer.pattern],
        mergeable_ranks={t: i for i, t in tokenizer.vocab.items() if i not in special},
        special_tokens=tokenizer.special_tokens,
    )


def as_tokenizers(tokenizer: Tokenizer, folder: Path) -> tokenizers.Tokenizer:
    tokenizer.to_huggingface(folder / "tokenizer.json")
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module", params=["gpt2", "cl100k", "o200k"])
def peers(
    request: pytest.FixtureRequest, corpus: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, tiktoken.Encoding, tokenizers.Tokenizer]:
    # tiktoken tries special tokens in no order of length, so none begins another here
    tokenizer = trained(corpus, 600, ["<|a|>", "<|end|>"], request.param)
    folder = tmp_path_factory.mktemp("peers")
    return tokenizer, as_tiktoken(tokenizer), as_tokenizers(tokenizer, folder)


# The libraries know different versions of Unicode; what this Python calls assigned they all know.
assigned = st.characters(exclude_categories=["Cs", "Cn"])
texts_all_know = st.one_of(
    st.text(assigned, max_size=40), st.lists(st.sampled_from(PIECES), max_size=25).map("".join)
)


@given(text=texts_all_know)
@settings(max_examples=300)
def test_equals_tiktoken_and_tokenizers(
    peers: tuple[Tokenizer, tiktoken.Encoding, tokenizers.Tokenizer], text: str
) -> None:
    tokenizer, tik, hf = peers
    ids = tokenizer.encode(text)
    assert ids == tik.encode(text, allowed_special="all")
    assert ids == hf.encode(text, add_special_tokens=False).ids
    assert hf.decode(ids, skip_special_tokens=False) == text


def test_every_assigned_character_equals_tiktoken(
    peers: tuple[Tokenizer, tiktoken.Encoding, tokenizers.Tokenizer],
) -> None:
    tokenizer, tik, _ = peers
    for code in range(0x110000):
        character = chr(code)
        if unicodedata.category(character) not in ("Cs", "Cn"):
            text = f"a{character}{character} {character}1{character}\n"
            assert tokenizer.encode(text) == tik.encode_ordinary(text), hex(code)


def test_longest_special_token_wins() -> None:
    tokenizer = trained("abc", 300, ["<|a|>", "<|a|><|a|>"])
    short, both = tokenizer.special_tokens.values()
    assert tokenizer.encode("<|a|><|a|><|a|>") == [both, short]


def test_unregistered_special_token_is_text(small: Tokenizer) -> None:
    plain = Tokenizer(small.vocab, small.merges)
    ids = plain.encode("a<|endoftext|>b")
    assert small.special_tokens["<|endoftext|>"] not in ids
    assert len(ids) > 3
    assert plain.decode(ids) == "a<|endoftext|>b"


def test_missing_special_tokens_are_appended(small: Tokenizer) -> None:
    more = Tokenizer(small.vocab, small.merges, ["<|new|>", "<|endoftext|>"])
    assert more.special_tokens == {"<|new|>": 500, "<|endoftext|>": 499}
    assert more.encode("<|new|><|endoftext|>") == [500, 499]
    assert (small.vocab_size, more.vocab_size) == (500, 501)


def test_nothing_gives_nothing(of_pattern: Tokenizer) -> None:
    assert of_pattern.encode("") == []
    assert of_pattern.encode_array(b"").dtype == np.uint16
    assert list(of_pattern.encode_iterable([])) == []
    assert list(of_pattern.encode_iterable(["", ""])) == []
    assert of_pattern.encode_batch([]) == []
    assert of_pattern.decode([]) == ""


def test_ids_are_uint16_up_to_65536_entries() -> None:
    vocab = byte_tokenizer().vocab
    assert Tokenizer(vocab, [], {"<|a|>": 65_535}).dtype == np.uint16
    assert Tokenizer(vocab, [], {"<|a|>": 65_536}).dtype == np.uint32
    assert Tokenizer(vocab, [], {"<|a|>": 65_536}).encode("a<|a|>") == [97, 65_536]


def test_bytes_behind_each_id(small: Tokenizer) -> None:
    lengths = small.byte_lengths()
    assert lengths.shape == (500,)
    assert lengths[499] == 0
    text = "some words and more: é\n"
    assert lengths[small.encode_array(text)].sum() == len(text.encode())


def test_byte_tokenizer() -> None:
    tokenizer = byte_tokenizer(["<|a|>"])
    assert tokenizer.encode("é<|a|>") == [0xC3, 0xA9, 256]


def test_half_characters_decode_to_the_replacement_character() -> None:
    tokenizer = byte_tokenizer()
    assert tokenizer.decode([0xC3, 97]) == "\ufffda"
    assert tokenizer.decode_bytes([0xC3, 97]) == b"\xc3a"
    with pytest.raises(UnicodeDecodeError):
        tokenizer.decode([0xC3, 97], errors="strict")


@pytest.mark.parametrize("bad", [500, -1, 2**40, 2**80])
def test_id_out_of_range(small: Tokenizer, bad: int) -> None:
    with pytest.raises(DataError, match=r"position 1|whole numbers"):
        small.decode([1, bad, 3])


def test_id_that_is_no_id() -> None:
    with_hole = Tokenizer(byte_tokenizer().vocab, [], {"<|a|>": 300})
    with pytest.raises(DataError, match="id 299 at position 0 is not in this vocabulary"):
        with_hole.decode([299])
    with pytest.raises(DataError, match="whole numbers"):
        with_hole.decode([1.5])  # type: ignore[list-item]


def test_text_that_is_no_unicode(of_pattern: Tokenizer) -> None:
    with pytest.raises(DataError, match="lone surrogate"):
        of_pattern.encode("a\ud800")
    with pytest.raises(DataError, match="lone surrogate"):
        list(of_pattern.encode_iterable(["a", "\ud800"]))
    with pytest.raises(DataError, match="invalid UTF-8 at byte 3"):
        of_pattern.encode_array(b"abc\xff")
    assert of_pattern.encode_array(b"abc\xff", errors="replace").tolist() == of_pattern.encode(
        "abc\ufffd"
    )


@pytest.mark.parametrize("pattern", [r"\w+", r"[a-z ]+"])
def test_pattern_that_does_not_cover_the_text(pattern: str) -> None:
    tokenizer = Tokenizer(byte_tokenizer().vocab, [], pattern=pattern)
    with pytest.raises(UserError, match=r"does not cover the text: nothing matches at '!"):
        tokenizer.encode("a!")


def test_survives_pickling(of_pattern: Tokenizer) -> None:
    copy = pickle.loads(pickle.dumps(of_pattern))
    assert copy.encode("some words <|a|>x") == of_pattern.encode("some words <|a|>x")


# Files


def write_plain(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def write_gz(path: Path, data: bytes) -> Path:
    return write_plain(path.with_suffix(".gz"), gzip.compress(data))


def write_zst(path: Path, data: bytes) -> Path:
    half = len(data) // 2  # in two frames
    return write_plain(
        path.with_suffix(".zst"), zstandard.compress(data[:half]) + zstandard.compress(data[half:])
    )


writers = pytest.mark.parametrize("write", [write_plain, write_gz, write_zst])


@writers
def test_encode_file(
    of_pattern: Tokenizer, corpus: str, tmp_path: Path, write: Callable[[Path, bytes], Path]
) -> None:
    paths = [write(tmp_path / "one.txt", corpus.encode()), write(tmp_path / "two.txt", b"ab ")]
    out = tmp_path / "new" / "ids.bin"
    count = of_pattern.encode_file(paths, out)
    ids = np.fromfile(out, of_pattern.dtype)
    # each file is a text of its own
    assert ids.tolist() == by_reference(of_pattern, corpus) + by_reference(of_pattern, "ab ")
    assert count == len(ids) == of_pattern.count_file(paths)
    assert b"".join(of_pattern.decode_file(out)).decode() == corpus + "ab "
    assert [path.name for path in out.parent.iterdir()] == ["ids.bin"]


@writers
@pytest.mark.parametrize("offset", [0, 5, 2_000_000])
def test_invalid_utf8_in_a_file_is_located(
    small: Tokenizer, tmp_path: Path, write: Callable[[Path, bytes], Path], offset: int
) -> None:
    path = write(tmp_path / "bad.txt", b"word " * (offset // 5) + b"\xff and more")
    out = tmp_path / "ids.bin"
    with pytest.raises(DataError, match=f"bad.*: invalid UTF-8 at byte {offset};"):
        small.encode_file([path], out)
    assert not out.exists()
    small.encode_file(path, out, errors="replace")
    assert b"".join(small.decode_file(out)).decode()[offset] == "\ufffd"


def test_file_that_ends_inside_a_character(of_pattern: Tokenizer, tmp_path: Path) -> None:
    path = write_plain(tmp_path / "cut.txt", "abcé".encode()[:-1])
    message = r"cut.txt: invalid UTF-8 at byte 3; .*errors='replace' \(--errors replace\)"
    with pytest.raises(DataError, match=message):
        of_pattern.encode_file(path, tmp_path / "ids.bin")


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("cut.gz", gzip.compress(b"word" * 1000, mtime=0)[:-20], "damaged or cut short"),
        ("cut.zst", zstandard.compress(b"word" * 1000)[:-4], "damaged or cut short"),
        ("foreign.gz", b"not gzip at all", "is named .gz but is not compressed that way"),
        ("foreign.zst", b"not zstd", "is named .zst but is not compressed that way"),
    ],
    ids=[
        "cut.gz",
        "cut.zst",
        "foreign.gz",
        "foreign.zst",
    ],  # of gzip's bytes they would hold the time
)
def test_broken_compressed_file(
    small: Tokenizer, tmp_path: Path, name: str, data: bytes, problem: str
) -> None:
    path = write_plain(tmp_path / name, data)
    with pytest.raises(DataError, match=f"{name}: {problem}"):
        small.encode_file(path, tmp_path / "ids.bin")
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_missing_file_and_directory(small: Tokenizer, tmp_path: Path) -> None:
    for path in (tmp_path / "missing.txt", tmp_path):
        with pytest.raises(DataError, match=r"cannot be read: (No such file|Is a directory)"):
            small.encode_file(path, tmp_path / "ids.bin")
    with pytest.raises(DataError, match="cannot be written"):
        small.encode_file(write_plain(tmp_path / "a.txt", b"a"), tmp_path / "a.txt" / "ids.bin")


def test_foreign_file_of_ids(small: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "ids.bin"
    np.array([1, 2, 60_000], np.uint16).tofile(path)
    with pytest.raises(DataError, match=r"ids.bin: id 60000 at position 2"):
        b"".join(small.decode_file(path))
    path.write_bytes(b"\1\0\2")
    with pytest.raises(DataError, match="ends inside an id"):
        b"".join(small.decode_file(path))


def test_thread_counts_agree(small: Tokenizer, corpus: str, tmp_path: Path) -> None:
    path = write_plain(tmp_path / "a.txt", (corpus * 40).encode())
    expected: Any = None
    for threads in (1, 2, 5):
        small.encode_file(path, tmp_path / "ids.bin", num_threads=threads)
        data = (tmp_path / "ids.bin").read_bytes()
        expected = expected or data
        assert data == expected
    assert np.frombuffer(expected, np.uint16).tolist() == small.encode(corpus * 40)
