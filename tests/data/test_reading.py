"""Documents out of files: python -m pytest tests/data/test_reading.py."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from lmlab.data.reading import Document, is_text, read_documents
from lmlab.errors import DataError
from lmlab.io import compression, rows
from lmlab.io.compression import NotText
from lmlab.io.rows import split_blocks


def read(path: Path, separator: str | None = None, field: str = "text") -> list[str]:
    found = read_documents(path, separator=separator, jsonl_field=field)
    return [document.decode() for document in found]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@given(
    text=st.binary(max_size=60).map(lambda b: bytes(97 + c % 3 for c in b)),
    separator=st.sampled_from([b"a", b"aa", b"ab", b"aba", b"bbbbbbbb"]),
    size=st.integers(1, 9),
)
def test_splitting_a_stream_equals_splitting_the_whole(
    text: bytes, separator: bytes, size: int
) -> None:
    blocks = [text[at : at + size] for at in range(0, len(text), size)]
    pieces = list(split_blocks(blocks, separator, Path("x")))
    assert [piece for _, piece in pieces] == text.split(separator)
    assert all(text[at : at + len(piece)] == piece for at, piece in pieces)


def test_a_file_is_a_document_verbatim(tmp_path: Path) -> None:
    text = " \r\n some text\n\n日本語\x00 \n"
    assert read(write(tmp_path / "a.md", text.encode())) == [text]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.txt", b"\xef\xbb\xbfhello")) == ["hello"]


def test_separator_and_blank_documents(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"one\n<|endoftext|>\ntwo\n<|endoftext|>\n \n<|endoftext|>\n")
    assert read(path, "<|endoftext|>") == ["one\n", "\ntwo\n"]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_packed_files_read_like_plain_ones(tmp_path: Path, suffix: str) -> None:
    rows = [{"text": f"line {i} ü", "more": i} for i in range(3000)]
    plain = "\n".join(map(json.dumps, rows)).encode()
    half = len(plain) // 2
    packed = {
        "": plain,
        # two members, two frames: what `cat a.gz b.gz` makes
        ".gz": gzip.compress(plain[:half]) + gzip.compress(plain[half:]),
        ".zst": zstandard.compress(plain[:half]) + zstandard.compress(plain[half:]),
    }[suffix]
    path = write(tmp_path / f"a.jsonl{suffix}", packed)
    counted: list[int] = []
    texts = read_documents(path, separator=None, jsonl_field="text", advance=counted.append)
    assert [text.decode() for text in texts] == [row["text"] for row in rows]
    assert sum(counted) == path.stat().st_size


HARMS = [("cut", "damaged or cut short"), ("not packed", "is not compressed that way")]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize(("harm", "said"), HARMS)
def test_a_damaged_packed_file_is_one_line(
    tmp_path: Path, suffix: str, harm: str, said: str
) -> None:
    text = bytes(range(97, 123)) * 50_000
    packed = gzip.compress(text) if suffix == ".gz" else zstandard.compress(text)
    content = packed[: len(packed) // 2] if harm == "cut" else text
    path = write(tmp_path / f"a.txt{suffix}", content)
    with pytest.raises(DataError, match=said) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("separator", [None, "|"])
@given(before=st.text(max_size=30), bom=st.booleans())
def test_invalid_utf8_names_file_and_byte(
    tmp_path_factory: pytest.TempPathFactory, separator: str | None, before: str, bom: bool
) -> None:
    content = b"\xef\xbb\xbf" * bom + before.encode() + b"\xff rest"
    path = write(tmp_path_factory.mktemp("bad") / "a.txt", content)
    with pytest.raises(NotText) as caught:
        read(path, separator)
    assert f"{path}: invalid UTF-8 at byte {len(content) - 6}" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"body": "x", "b": 1}', "no field 'text' .there is 'body', 'b'."),
        (b"{}", "there is none"),
        (b'{"text": 3}', "holds 3, not text"),
        (b'["text"]', "there is no object"),
        (b'{"text": "x"', "not a JSON object"),
        (b'{"text": "\\ud800"}', "surrogate"),
        (b"[" * 100_000, "not a JSON object"),
    ],
)
def test_bad_json_lines_name_file_and_line(tmp_path: Path, line: bytes, problem: str) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "fine"}\n\n' + line + b"\n")
    with pytest.raises(DataError, match=problem) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert "\n" not in str(caught.value)


def test_an_unreadable_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read(tmp_path)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read(tmp_path / "gone.txt")


def test_an_endless_document_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_DOCUMENT", 1000)
    monkeypatch.setattr(compression, "BLOCK", 100)
    path = write(tmp_path / "a.txt", b"short|" + b"x" * 2000)
    texts: Iterator[Document] = read_documents(path, separator="|", jsonl_field="text")
    assert next(texts) == b"short"
    with pytest.raises(DataError, match=r"starts at byte 6: set data\.separator"):
        next(texts)


ROWS = [{"text": f"line {i}"} for i in range(3)]
LINES = "\n".join(map(json.dumps, ROWS)).encode()


@pytest.mark.parametrize("name", ["a.json.gz", "a.json", "a.JSONL", "a.jl", "a.ndjson", "a.txt"])
def test_json_lines_under_any_name(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, gzip.compress(LINES) if name.endswith(".gz") else LINES)
    assert read(path) == [row["text"] for row in ROWS]
    as_text = read_documents(path, separator=None, jsonl_field="text", format="text")
    assert list(as_text) == [LINES]


@pytest.mark.parametrize("indent", [None, 1])
def test_other_json_is_one_line_that_says_what_to_do(tmp_path: Path, indent: int | None) -> None:
    path = write(tmp_path / "a.json", json.dumps(ROWS, indent=indent).encode())
    with pytest.raises(DataError, match="one object a line; convert it") as caught:
        read(path)
    assert "set data.format=text" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_named_jsonl_that_is_plain_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:1: not a JSON object.*set data\.format=text"):
        read(write(tmp_path / "a.jsonl", b"some text\n"))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"some text \xc3\xa9", True),
        (gzip.compress(b"some text", mtime=0), True),
        (b"", True),
        (b"caf\xe9", False),
        (b"cut \xc3", False),
        (b"a\0b", False),
        (b"PK\x03\x04", False),
    ],
)
def test_what_is_text(tmp_path: Path, content: bytes, text: bool) -> None:
    assert is_text(write(tmp_path / "a", content)) == text


def test_parquet_is_read_by_its_content(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.bin"
    parquet.write_table(pyarrow.table({"text": ["one", " ", "zwö"], "n": [1, 2, 3]}), path)
    assert read(path) == ["one", "zwö"]
    with pytest.raises(DataError, match=r"no column 'body' .*'text', 'n'.*data\.jsonl_field"):
        read(path, field="body")
    with pytest.raises(DataError, match="row 1: column 'n' holds 1, not text"):
        read(path, field="n")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="cannot be read"):
        read(path)
    column = pyarrow.array([b"one", b"two \xff"], pyarrow.binary())
    texts = pyarrow.StringArray.from_buffers(2, *column.buffers()[1:])
    parquet.write_table(pyarrow.table({"text": texts}), path)
    with pytest.raises(DataError, match="'text' is not UTF-8 in one of the rows 1 to 64; convert"):
        read(path)
