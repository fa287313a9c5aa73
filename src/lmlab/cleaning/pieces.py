"""Pieces of a file of bounded size, and their text."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """A part of an input that was passed over."""

    offset: int
    """In bytes: of archives in the file, of other formats in the decompressed content; of Parquet
    files the number of the row."""
    reason: str


Report = Callable[[Problem], object]


def bounded_pieces(
    blocks: Iterable[bytes], separator: bytes | None, limit: int, report: Report
) -> Iterator[tuple[int, bytes | bytearray]]:
    """Yield (offset, piece) for what stands between separators; None: all is one piece.

    Memory holds at most `limit` bytes and two blocks: longer pieces are reported and passed over.
    """
    pending = bytearray()
    offset = 0  # of what is pending
    dropped = 0  # bytes of the current piece that are no longer held
    overlap = 0 if separator is None else len(separator) - 1
    for block in blocks:
        start = max(0, len(pending) - overlap)
        pending += block
        if separator is not None:
            begin = 0
            while (end := pending.find(separator, max(start, begin))) >= 0:
                if dropped:
                    report(_too_long(offset - dropped, dropped + end - begin, limit))
                    dropped = 0
                elif end - begin > limit:
                    report(_too_long(offset + begin, end - begin, limit))
                else:
                    yield offset + begin, pending[begin:end]
                begin = end + len(separator)
            del pending[:begin]
            offset += begin
        if len(pending) > limit + overlap:  # of which `overlap` may begin a separator
            cut = len(pending) - overlap
            dropped += cut
            offset += cut
            del pending[:cut]
    if dropped or len(pending) > limit:
        report(_too_long(offset - dropped, dropped + len(pending), limit))
    elif pending:
        yield offset, pending


def _too_long(offset: int, size: int, limit: int) -> Problem:
    return Problem(
        offset,
        f"a document of {size:,} bytes, more than read.max_document_bytes={limit:,}",
    )


def decode(data: bytes | bytearray, metadata: dict[str, Any]) -> str:
    """Return UTF-8 as text; invalid bytes become U+FFFD and are counted in the metadata."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        text = data.decode(errors="replace")
        metadata["replaced_characters"] = text.count("\ufffd")
        return text


def without_surrogates(text: str) -> str:
    """Return text that UTF-8 can hold: half a surrogate pair becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
