"""Blocks of a file, decompressed as they are read: gzip and zstd, recognised by their content."""

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Literal, Protocol

import zstandard

from lmlab.errors import DataError
from lmlab.files import is_plain_file

Advance = Callable[[int], object]
"""Is called with the number of bytes that were read from the disk."""
Compression = Literal["gzip", "zstd"]

BLOCK = 1 << 20
SUFFIXES = (".gz", ".zst")
MAX_WINDOW = 1 << 29
"""Bytes of earlier content that a zstd frame may refer to; they are held in memory."""

# 4 bytes of zstd may stand for 128 KiB, 4 of gzip for 4 KiB: 8 MiB of content at a time at most.
_FED: dict[Compression, int] = {"zstd": 256, "gzip": 8192}
_PIECE = 1 << 17  # bytes of content to return at least: small pieces would be slow to work on
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL)  # RFC 8878, 3.1
_ZSTD_HEADER = 18
_OTHER = (
    (re.compile(rb"PK\x03\x04"), "a zip archive", "extract its text files"),
    (re.compile(rb".{257}ustar", re.DOTALL), "a tar archive", "extract its text files"),
    (re.compile(rb"7z\xbc\xaf\x27\x1c"), "a 7z archive", "extract its text files"),
    (re.compile(rb"\xfd7zXZ\x00"), "compressed by xz", "unpack it, or compress it as .gz or .zst"),
    (re.compile(rb"BZh[1-9]1AY&SY"), "compressed by bzip2", "unpack it, or use .gz or .zst"),
    (re.compile(rb"PAR1\x15"), "a Parquet file", "export it as JSON lines"),
    (re.compile(rb"%PDF-\d"), "a PDF document", "extract its text"),
    (re.compile(rb"\xff\xfe|\xfe\xff"), "UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8"),
)


class NotText(DataError):
    """A file that is not UTF-8 text."""


class DamagedFile(DataError):
    """A compressed file that is cut short or damaged."""


class _Window(Exception):
    """A zstd frame needs more memory than MAX_WINDOW."""


class _Frame(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def compression_of(head: bytes) -> Compression | None:
    """Return how content that begins with `head` is compressed; None: not at all.

    No UTF-8 text begins like gzip or zstd.
    """
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    return "zstd" if _ZSTD.match(head) else None


def is_plain_text(path: Path) -> bool:
    """Return whether `path` is a regular file that is neither compressed nor named so."""
    if path.suffix.lower() in SUFFIXES or not is_plain_file(path):
        return False
    try:
        with path.open("rb") as file:
            return compression_of(file.read(4)) is None
    except OSError:
        return False


def read_blocks(path: Path, advance: Advance = lambda _: None) -> Iterator[bytes]:
    """Yield the content of `path` in blocks of about a megabyte, decompressed.

    Several gzip members or zstd frames are one content. Memory is bounded however well the file
    was compressed. Raises DamagedFile, NotText for formats that are not read, and DataError.
    """
    try:
        blocks = _plain_blocks(path, advance)
        head = next(blocks, b"")
        blocks = chain([head], blocks)
        kind = compression_of(head)
        if kind is None:
            if head and path.suffix.lower() in SUFFIXES:
                raise DamagedFile(
                    f"{path}: is named {path.suffix} but is not compressed that way; rename it, "
                    "or compress or download it again"
                )
            yield from _checked(path, blocks)
        else:
            yield from _checked(path, decompress(blocks, kind))
    except _Window as error:
        raise DataError(
            f"{path}: needs {error} of memory to decompress, more than {MAX_WINDOW >> 20:,} MiB; "
            f"compress it with a smaller window: zstd -dc --long=31 {path.name} | zstd > NEW.zst"
        ) from None
    except (EOFError, zlib.error, zstandard.ZstdError) as error:
        raise DamagedFile(
            f"{path}: damaged or cut short ({error}); compress or download it again"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_plain(path: Path) -> Iterator[bytes]:
    """Yield the bytes of `path` as they are, in blocks of a megabyte."""
    try:
        yield from _plain_blocks(path, lambda _: None)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def decompress(blocks: Iterable[bytes], kind: Compression) -> Iterator[bytes]:
    """Yield the content of consecutive zstd frames or gzip members.

    Raises EOFError when the last one is cut short, zlib.error or ZstdError when one is damaged.
    """
    # The stream readers of both libraries take a frame that is cut short for the end of the file.
    frame: _Frame | None = None
    header = b""
    held: list[bytes] = []
    size = 0
    for block in blocks:
        for start in range(0, len(block), _FED[kind]):
            data = block[start : start + _FED[kind]]
            while data:
                if frame is None:
                    if kind == "gzip" and not (data := data.lstrip(b"\0")):
                        break  # zeros may follow a gzip member
                    frame, header = _open_frame(kind), b""
                header += data[: _ZSTD_HEADER - len(header)]
                content = _feed(frame, data, header)
                data = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
                held.append(content)
                size += len(content)
                if size >= _PIECE:
                    yield b"".join(held)
                    held, size = [], 0
    if size:
        yield b"".join(held)
    if frame is not None:
        raise EOFError("the end is missing")


def _open_frame(kind: Compression) -> _Frame:
    if kind == "gzip":
        return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    return zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()


def _feed(frame: _Frame, data: bytes, header: bytes) -> bytes:
    try:
        return frame.decompress(data)
    except zstandard.ZstdError:
        try:
            window = zstandard.get_frame_parameters(header).window_size
        except zstandard.ZstdError:
            window = 0  # the header itself is damaged
        if window > MAX_WINDOW:
            raise _Window(f"{window >> 20:,} MiB") from None
        raise


def _plain_blocks(path: Path, advance: Advance) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            advance(len(block))
            yield block


def _checked(path: Path, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Refuse what is known not to be text by how it begins."""
    head = next(blocks, b"")
    for pattern, what, advice in _OTHER:
        if pattern.match(head):
            raise NotText(f"{path}: is {what}; {advice}")
    yield from chain([head], blocks)
