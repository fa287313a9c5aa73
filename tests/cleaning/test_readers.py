"""Readers: every format, and what is broken is passed over with its offset."""

import gzip
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from cleaning_support import step
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lmlab.cleaning.document import Document
from lmlab.cleaning.pieces import Problem, bounded_pieces
from lmlab.cleaning.pipeline_config import ReadConfig
from lmlab.cleaning.reading import read_documents

CONFIG = ReadConfig(field="text", separator=None, max_document_bytes=1 << 20)


def read(path: Path, config: ReadConfig = CONFIG) -> tuple[list[Document], list[Problem]]:
    problems: list[Problem] = []
    return list(read_documents(path, config, problems.append)), problems


def record(kind: str, body: bytes, content_type: str, url: str = "https://example.com/") -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:0>\r\n"
        f"WARC-Date: 2026-01-01T00:00:00Z\r\nWARC-Target-URI: {url}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def response(
    html: bytes,
    headers: str = "",
    status: str = "200 OK",
    url: str = "u",
    kind: str = "text/html; charset=utf-8",
) -> bytes:
    http = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{headers}\r\n".encode()
    return record("response", http + html, "application/http; msgtype=response", url)


def warc(number: int = 6) -> list[bytes]:
    info = record("warcinfo", b"software: test\r\n", "application/warc-fields")
    request = record("request", b"GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request")
    pages = [response(b"<html><p>page %d" % i, url=f"https://a.org/{i}") for i in range(number)]
    return [info, request, *pages]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_archives(tmp_path: Path, suffix: str) -> None:
    records = warc()
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    packed = [pack(r) for r in records]
    path = tmp_path / f"a.warc{suffix}"
    path.write_bytes(b"".join(packed))
    found, problems = read(path)
    assert problems == []
    assert [document.raw for document in found] == [b"<html><p>page %d" % i for i in range(6)]
    assert [document.metadata["url"] for document in found] == [
        f"https://a.org/{i}" for i in range(6)
    ]
    assert len({document.id for document in found}) == 6
    if suffix != ".zst":
        offsets = [sum(map(len, packed[:i])) for i in range(2, 8)]
        assert [document.id for document in found] == [f"{path}:{offset}" for offset in offsets]


def test_records_that_are_compressed_together_have_different_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.warc.gz"
    path.write_bytes(gzip.compress(b"".join(warc())))
    found, problems = read(path)
    assert (len(found), len({document.id for document in found}), problems) == (6, 6, [])


def test_wet_and_wat(tmp_path: Path) -> None:
    wet = record("conversion", "Süßes\n".encode(), "text/plain", "https://a.org/")
    (tmp_path / "a.warc.wet.gz").write_bytes(gzip.compress(wet))
    (document,), _ = read(tmp_path / "a.warc.wet.gz")
    assert (document.text, document.raw) == ("Süßes\n", None)
    head = {"Title": "A title", "Metas": [{"name": "description", "content": "About it"}]}
    envelope = {
        "Payload-Metadata": {"HTTP-Response-Metadata": {"HTML-Metadata": {"Head": head}}},
        "WARC-Header-Metadata": {"WARC-Target-URI": "https://b.org/"},
    }
    wat = record("metadata", json.dumps({"Envelope": envelope}).encode(), "application/json")
    other = record("metadata", b"fetchTimeMs: 258\r\n", "application/warc-fields")
    (tmp_path / "a.wat").write_bytes(wat + other)
    (document,), problems = read(tmp_path / "a.wat")
    assert document.text == "A title\nAbout it"
    assert (document.metadata["url"], problems) == ("https://b.org/", [])


def test_http_bodies_are_decoded(tmp_path: Path) -> None:
    page = b"<html>hello"
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(page), page)
    parts = [
        response(gzip.compress(page), "Content-Encoding: gzip\r\n"),
        response(chunked, "Transfer-Encoding: chunked\r\n"),
        response(page, "Content-Encoding: gzip\r\n"),  # as some archives store it
        response(page, status="404 Not Found"),
    ]
    (tmp_path / "a.warc").write_bytes(b"".join(parts))
    found, problems = read(tmp_path / "a.warc")
    assert ([document.raw for document in found], problems) == ([page] * 3, [])


def test_http_bodies_that_cannot_be_decoded_are_no_pages(tmp_path: Path) -> None:
    page = b"<html>hello" * 20
    packed = gzip.compress(page)
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(page) - 1, page)  # damaged, not cut
    parts = [
        response(packed[:30] + b"\xff\xff" + packed[32:], "Content-Encoding: gzip\r\n"),
        response(packed, "Content-Encoding: x-gzip\r\n"),
        response(zlib.compress(page)[2:-4], "Content-Encoding: deflate\r\n"),
        response(chunked, "Transfer-Encoding: chunked\r\n"),
        response(packed, kind="application/gzip"),
        response(page),
    ]
    (tmp_path / "a.warc").write_bytes(b"".join(parts))
    found, problems = read(tmp_path / "a.warc")
    assert [document.raw for document in found] == [page]
    assert [problem.offset for problem in problems] == [sum(map(len, parts[:i])) for i in range(4)]
    assert {problem.reason for problem in problems} == {
        "a page whose Content- or Transfer-Encoding cannot be decoded"
    }


PAGE = b"<html>" + b"".join(b"<p>paragraph %d" % i for i in range(40))
CODINGS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "identity": (bytes, bytes),
    "gzip": (gzip.compress, lambda data: zlib.decompressobj(31).decompress(data)),
    "deflate": (zlib.compress, lambda data: zlib.decompressobj().decompress(data)),
}
"""Encoding -> what encodes a body, and what decodes one that is cut."""


@pytest.mark.parametrize("coding", CODINGS)
def test_what_arrived_of_a_body_in_chunks_is_kept(tmp_path: Path, coding: str) -> None:
    """Wherever it is cut behind its first bytes."""
    encode, decode = CODINGS[coding]
    data = encode(PAGE)
    body, arrived = b"", []  # how much of the data is in the first bytes of the body
    for start in range(0, len(data), 30):
        piece = data[start : start + 30]
        size = b"%x;name=value\r\n" % len(piece)
        body += size + piece + b"\r\n"
        arrived += [start] * len(size) + [start + i + 1 for i in range(len(piece))]
        arrived += [start + len(piece)] * 2
    body += b"0\r\n\r\n"
    arrived += [len(data)] * 5
    headers = "Transfer-Encoding: chunked\r\n"
    if coding != "identity":
        headers += f"Content-Encoding: {coding}\r\n"
    for cut in range(50, len(body) + 1):
        parts = response(body[:cut], headers), response(b"<p>next")
        (tmp_path / "a.warc").write_bytes(b"".join(parts))
        expected = decode(data[: arrived[cut - 1]])
        found, problems = read(tmp_path / "a.warc")
        assert [document.raw for document in found] == [expected, b"<p>next"]
        reasons = [problem.reason for problem in problems]
        if reasons:  # cut between two chunks it looks whole
            assert reasons == [f"a page that is cut short: its first {len(expected):,} bytes stay"]
        assert bool(reasons) or cut >= len(body) - 4 or body[cut - 2 : cut] == b"\r\n"


def test_the_servers_encoding_is_read(tmp_path: Path) -> None:
    text = "Вчора я був у місті і зустрів друзів."
    body = text.encode("koi8-u")
    kinds = ("text/html", "text/plain")
    parts = [response(b"<p>" + body, kind=f'{kind}; charset="koi8-u"') for kind in kinds]
    (tmp_path / "a.warc").write_bytes(b"".join(parts))
    found, _ = read(tmp_path / "a.warc")
    (page,) = step("course", "extract")(found[:1])
    assert (page.text, found[1].text) == (text, f"<p>{text}")


def test_an_http_bomb_is_passed_over(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    (tmp_path / "a.warc").write_bytes(
        response(bomb, "Content-Encoding: gzip\r\n") + response(b"<p>good")
    )
    (document,), (problem,) = read(tmp_path / "a.warc")
    assert document.raw == b"<p>good"
    assert (problem.offset, "max_document_bytes" in problem.reason) == (0, True)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("damaged", [2, 4, 7])
def test_damage_costs_one_record(tmp_path: Path, suffix: str, damaged: int) -> None:
    records = warc()
    if suffix:
        packed = [gzip.compress(r) for r in records]
        broken = bytearray(packed[damaged])
        broken[len(broken) // 2] ^= 0xFF
        broken[len(broken) // 2 + 1] ^= 0xFF
    else:
        packed = list(records)
        broken = bytearray(packed[damaged].replace(b"WARC/1.0", b"XARC/1.0"))
    offset = sum(map(len, packed[:damaged]))
    packed[damaged] = bytes(broken)
    path = tmp_path / f"a.warc{suffix}"
    path.write_bytes(b"".join(packed))
    found, problems = read(path)
    expected = [b"<html><p>page %d" % i for i in range(6) if i + 2 != damaged]
    assert [document.raw for document in found] == expected
    assert len(problems) == 1
    if suffix:
        assert problems[0].offset == offset


@settings(deadline=None)
@given(st.data())
def test_any_cut_or_change_of_an_archive_is_survived(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """No exception; what is read is among what was there, and a loss is reported."""
    packed = b"".join(gzip.compress(r) for r in warc(3))
    content = bytearray(packed[: data.draw(st.integers(0, len(packed)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            place = data.draw(st.integers(0, len(content) - 1))
            content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("cut") / "a.warc.gz"
    path.write_bytes(content)
    found, problems = read(path)
    pages = [b"<html><p>page %d" % i for i in range(3)]
    kept = [document.raw for document in found if document.raw in pages]
    assert kept == sorted(set(kept))
    whole = content == packed[: len(content)] and len(content) in (0, len(packed))
    assert problems == [] or not whole


def test_a_clipped_archive_keeps_what_is_whole(tmp_path: Path) -> None:
    packed = [gzip.compress(r) for r in warc()]
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"".join(packed)[:-60])
    found, (problem,) = read(path)
    assert len(found) == 5
    assert problem.offset == sum(map(len, packed[:-1]))


def test_json_lines(tmp_path: Path) -> None:
    lines = [
        b'{"text": "one", "url": "u", "n": 1}',
        b"{broken",
        b'{"other": "x"}',
        b"[1]",
        b'{"text": 3}',
        b"",
        b'{"text": "half \\ud800 pair"}',
        b'{"text": "' + b"x" * (2 << 20) + b'"}',
        b'{"text": "two"}',
    ]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    found, problems = read(path)
    assert [document.text for document in found] == ["one", "half \ufffd pair", "two"]
    assert found[0].metadata == {"url": "u", "n": 1}
    offsets = [sum(len(line) + 1 for line in lines[:i]) for i in range(len(lines))]
    assert [problem.offset for problem in problems] == [offsets[i] for i in (1, 2, 3, 4, 7)]
    assert [document.id for document in found] == [f"{path}:{offsets[i]}" for i in (0, 6, 8)]


def test_json_lines_that_are_cut_short(tmp_path: Path) -> None:
    content = b"".join(b'{"text": "document %d"}\n' % i for i in range(1000))
    packed = gzip.compress(content)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(packed[:-100])
    found, problems = read(path)
    assert 0 < len(found) < 1000
    assert "damaged or cut short" in problems[0].reason


def test_plain_text_with_and_without_separator(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one<|endoftext|>two\xff<|endoftext|>\n<|endoftext|>three")
    config = CONFIG.model_copy(update={"separator": "<|endoftext|>"})
    found, problems = read(path, config)
    assert [document.text for document in found] == ["one", "two\ufffd", "three"]
    assert found[1].metadata == {"replaced_characters": 1}
    assert [document.id for document in found] == [f"{path}:{i}" for i in (0, 16, 47)]
    assert problems == []
    (document,), _ = read(path)
    assert document.text.startswith("one<|endoftext|>two")


def test_separators_have_escapes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\nthree")
    config = ReadConfig(field="text", separator=r"\n\n", max_document_bytes=100)
    found, _ = read(tmp_path / "a.txt", config)
    assert [document.text for document in found] == ["one", "two", "three"]
    with pytest.raises(ValidationError, match="not an escape"):
        ReadConfig(field="text", separator=r"\q", max_document_bytes=100)


def test_html_files(tmp_path: Path) -> None:
    (tmp_path / "a.html.gz").write_bytes(gzip.compress(b"<p>x"))
    (document,), _ = read(tmp_path / "a.html.gz")
    assert (document.raw, document.text) == (b"<p>x", "")


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")

    table = pyarrow.table({"text": ["one", None, "two"], "url": ["a", "b", "c"]})
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(table, path)
    found, (problem,) = read(path)
    assert [(d.id, d.text, d.metadata) for d in found] == [
        (f"{path}:0", "one", {"url": "a"}),
        (f"{path}:2", "two", {"url": "c"}),
    ]
    assert problem.offset == 1
    path.write_bytes(path.read_bytes()[:-20])
    found, (problem,) = read(path)
    assert (found, problem.offset) == ([], 0)


def test_text_in_parquet_that_is_not_utf8_costs_its_row(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    column = pyarrow.array([b"one", b"two \xff", b"three"], pyarrow.binary())
    texts = pyarrow.StringArray.from_buffers(3, *column.buffers()[1:])
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    found, (problem,) = read(tmp_path / "a.parquet")
    assert [document.text for document in found] == ["one", "three"]
    assert (problem.offset, problem.reason) == (1, "a row with text that is not UTF-8")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl.gz", "a.parquet", "a.warc.gz", "a.html"])
def test_a_file_that_the_disk_does_not_give_is_not_passed_over(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match="No such file"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.zip", b"PK\x03\x04....", "zip archive"),
        ("a.arc", b"filedesc://a.arc 0.0.0.0 2026", "ARC"),
        ("a.json", b'[{"text": "x"}]', "one object a line"),
        ("a.warc", b"no archive at all", "damaged record"),
        ("a.warc.gz", zlib.compress(b"x"), "damaged record"),
        ("a.parquet", b"PAR1", "Parquet"),
        ("a.jsonl.gz", b"plain", "not compressed"),
    ],
)
def test_what_is_no_corpus_is_reported(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    found, problems = read(tmp_path / name)
    assert found == []
    assert [problem.offset for problem in problems] == [0]
    assert reason in problems[0].reason


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=40), max_size=20),
    st.sampled_from([None, b"\n", b"<>", b"aab"]),
    st.integers(1, 30),
    st.integers(1, 50),
)
@example(parts=[b"a", b""], separator=b"<>", limit=1, block=1)
@example(parts=[b"ab"], separator=b"<>", limit=1, block=1)
def test_pieces_are_those_of_split(
    parts: list[bytes], separator: bytes | None, limit: int, block: int
) -> None:
    content = (separator or b"").join(parts)
    stream = io.BytesIO(content)
    blocks = iter(lambda: stream.read(block), b"")
    problems: list[Problem] = []
    found = [(o, bytes(p)) for o, p in bounded_pieces(blocks, separator, limit, problems.append)]
    pieces = content.split(separator) if separator else [content]
    offsets = [sum(len(p) + len(separator or b"") for p in pieces[:i]) for i in range(len(pieces))]
    expected = list(zip(offsets, pieces, strict=True))
    assert [item for item in found if item[1]] == [
        item for item in expected if item[1] and len(item[1]) <= limit
    ]
    assert [p.offset for p in problems] == [o for o, piece in expected if len(piece) > limit]
