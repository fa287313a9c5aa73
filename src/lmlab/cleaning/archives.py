"""WARC, WET and WAT files by FastWARC (Bevendorff et al. 2021), past damaged records."""

import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lmlab.cleaning.chunked import begins_with_chunk, received_chunks
from lmlab.cleaning.document import Document
from lmlab.cleaning.html import decode_html
from lmlab.cleaning.pieces import Problem, Report, decode, without_surrogates
from lmlab.cleaning.pipeline_config import ReadConfig
from lmlab.errors import UserError
from lmlab.io.compression import BLOCK, compression_of

try:
    from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType
except ImportError:
    raise UserError(
        "web archives are read by FastWARC; install it with `pip install 'lmlab[cleaning]'`"
    ) from None

_HTML_TYPES = ("text/html", "application/xhtml+xml")
_PLAIN = b"WARC/"
_GZIP = b"\x1f\x8b\x08"
_MARKS = (_GZIP, b"\x28\xb5\x2f\xfd", _PLAIN)
"""How a record can begin: a gzip member, a zstd frame, plain."""
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
"""Bytes that no text has (MIME Sniffing Standard, section 3)."""
_SNIFFED = 1445  # bytes, by the same standard


def read_archive(
    path: Path, config: ReadConfig, report: Report, advance: Any
) -> Iterator[Document]:
    """Yield the pages of `response` records, the text of `conversion` and `metadata` (WAT) records.

    Pages other than HTML and plain text, and records that hold no document, are left out. A record
    that is cut short or damaged is reported; reading resumes at the next one that is intact.
    """
    seen: dict[int, int] = {}
    with path.open("rb") as file:
        done = 0
        for offset, record in _records(file, report):
            advance(file.tell() - done)
            done = file.tell()
            document = _document(offset, record, config, report)
            if document is None:
                continue
            # Records that were compressed together have one offset.
            count = seen.get(offset, 0)
            seen = {offset: count + 1}
            document.id = f"{path}:{offset}+{count}" if count else f"{path}:{offset}"
            yield document


def _records(file: IO[bytes], report: Report) -> Iterator[tuple[int, Any]]:
    """Yield (offset, record); the reader resumes after damage at the next record that parses."""
    kinds = WarcRecordType.response | WarcRecordType.conversion | WarcRecordType.metadata
    size = os.fstat(file.fileno()).st_size
    is_plain = file.read(len(_PLAIN)) == _PLAIN
    start = 0
    while start < size:
        file.seek(start)
        position = None
        after = None  # where the record after the last intact one can begin at the earliest
        try:
            records: Any = ArchiveIterator(file, parse_http=False)
            for record in records:
                position = record.stream_pos
                after = position + (record.content_length if is_plain else 1)
                if "Content-Length" not in record.headers:
                    report(Problem(position, "a record whose head is cut short"))
                elif record.record_type & kinds:
                    yield position, record
            # A record whose head is cut short is taken for the end of the file.
            if position is not None:
                start = _next_record(file, position, after, size)
            if start < size:
                report(Problem(start, "no whole WARC record"))
            return
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk
            if after is not None:
                start = _next_mark(file, after, size)  # the damaged record, or the one after it
                report(Problem(start, f"a damaged record: {_line(error)}"))
                continue
            if start == 0:
                report(Problem(0, f"a damaged record: {_line(error)}"))
            start = _next_mark(file, start + 1, size)


def _next_record(file: IO[bytes], position: int, after: int | None, size: int) -> int:
    """Return where a record may begin after the one at `position`, the last; `size`: nowhere."""
    file.seek(position)
    if file.read(len(_GZIP)) != _GZIP:
        return _next_mark(file, after or position + 1, size)
    file.seek(position)
    member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    while not member.eof and (block := file.read(BLOCK)):
        try:
            while block and not member.eof:
                member.decompress(block, BLOCK)
                block = member.unconsumed_tail
        except zlib.error:
            return size
    end = file.tell() - len(member.unused_data)
    return end if member.unused_data.strip(b"\0") else size


def _next_mark(file: IO[bytes], start: int, size: int) -> int:
    """Return where the next record may begin, `size` when there is no such place."""
    overlap = max(map(len, _MARKS)) - 1
    while start < size:
        file.seek(start)
        block = file.read(BLOCK)
        places = [place for mark in _MARKS if (place := block.find(mark)) >= 0]
        if places:
            return start + min(places)
        if len(block) <= overlap:
            return size
        start += len(block) - overlap
    return size


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _document(offset: int, record: Any, config: ReadConfig, report: Report) -> Document | None:
    expected, limit = record.content_length, config.max_document_bytes
    if expected > limit:
        report(
            Problem(
                offset,
                f"a record of {expected:,} bytes, more than read.max_document_bytes={limit:,}",
            )
        )
        return None
    block = record.reader.read()
    if len(block) < expected:
        report(Problem(offset, f"cut short: {len(block):,} of {expected:,} bytes are there"))
        return None
    metadata = {
        name: value
        for name, header in (("url", "WARC-Target-URI"), ("date", "WARC-Date"))
        if (value := record.headers.get(header))
    }
    if record.record_type == WarcRecordType.response:
        response = _response(block, limit)
        is_cut = False
        if (response is None or response[2] == "none") and (received := received_chunks(block)):
            block, is_whole = received
            response, is_cut = _response(block, limit), not is_whole
        if response is None:
            report(Problem(offset, "an HTTP response that cannot be read"))
            return None
        parsed, body, decoded = response
        if len(body) > limit:
            report(Problem(offset, f"decodes to more than read.max_document_bytes={limit:,}"))
            return None
        page = _page(parsed, body, metadata)
        if page is not None and _is_encoded(body, decoded):
            report(Problem(offset, "a page whose Content- or Transfer-Encoding cannot be decoded"))
            return None
        if page is not None and is_cut:
            report(Problem(offset, f"a page that is cut short: its first {len(body):,} bytes stay"))
        return page
    if record.record_type == WarcRecordType.metadata:
        return _wat(block, metadata)
    document = Document("", metadata=metadata)
    document.text = decode(block, metadata)
    return document


def _response(block: bytes, limit: int) -> tuple[Any, bytes, str] | None:
    """Return the record with its HTTP headers parsed, the body, and which encodings were decoded.

    A body that is not encoded as the headers say is returned as it is.
    """
    for encodings in ("all", "transfer", "none"):
        record: Any = WarcRecord()
        record.init_headers(WarcRecordType.response)
        record.set_bytes_content(block)
        record.is_http = True
        try:
            record.parse_http(auto_decode=encodings, quirks_mode=True)
            body = record.reader.read(limit + 1)
        except (OSError, ValueError, RuntimeError):
            continue
        return record, body, encodings
    return None


def _is_encoded(body: bytes, decoded: str) -> bool:
    """Return whether a page is still compressed or in chunks."""
    if compression_of(body):
        return True
    if decoded == "none" and begins_with_chunk(body):
        return True
    return decoded != "all" and _BINARY.search(body, 0, _SNIFFED) is not None


def _page(record: Any, body: bytes, metadata: dict[str, Any]) -> Document | None:
    if record.http_headers.status_code not in (None, 200):
        return None
    kind = (record.http_content_type or "").lower()
    if kind in _HTML_TYPES or (not kind and b"<" in body[:1024]):
        return Document("", raw=body, metadata=metadata, charset=_charset(record))
    if kind == "text/plain":
        document = Document("", decode_html(body, _charset(record)), metadata=metadata)
        if replaced := document.text.count("\ufffd"):
            metadata["replaced_characters"] = replaced
        return document
    return None


def _charset(record: Any) -> str | None:
    return str(record.http_charset or "").strip("\"' ") or None


def _wat(body: bytes, metadata: dict[str, Any]) -> Document | None:
    """Return the title and the description of a page that a WAT record describes."""
    try:
        envelope = json.loads(body)["Envelope"]
        http = envelope["Payload-Metadata"]["HTTP-Response-Metadata"]
        head = http["HTML-Metadata"]["Head"]
        url = envelope["WARC-Header-Metadata"]["WARC-Target-URI"]
    except (ValueError, KeyError, TypeError, RecursionError):  # no page's
        return None
    metas = head.get("Metas")
    descriptions = [
        meta.get("content")
        for meta in (metas if isinstance(metas, list) else [])
        if isinstance(meta, dict) and meta.get("name") == "description"
    ]
    texts = [text for text in (head.get("Title"), *descriptions) if isinstance(text, str)]
    document = Document("", metadata={**metadata, "url": str(url)})
    document.text = without_surrogates("\n".join(texts))
    return document
