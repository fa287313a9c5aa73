"""Text from files: plain, `.gz` or `.zst`, streamed, with the byte that is no UTF-8 named."""

import codecs
import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import zstandard

from lmlab.errors import DataError

Errors = Literal["strict", "replace"]
CHUNK = 1 << 20


def read_chunks(path: Path, chunk: int = CHUNK) -> Iterator[bytes]:
    """The content of a file in pieces of about `chunk` bytes, decompressed by its suffix.

    A file that cannot be read, or whose compressed content is cut or broken, is a DataError.
    """
    try:
        with path.open("rb") as file:
            if path.suffix == ".gz":
                stream = gzip.GzipFile(fileobj=file)
            elif path.suffix == ".zst":
                stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            else:
                stream = file
            while data := stream.read(chunk):
                yield data
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise DataError(f"{path}: broken {path.suffix} file: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def decode_chunks(chunks: Iterable[bytes], source: str, errors: Errors = "strict") -> Iterator[str]:
    """The text of consecutive pieces of bytes; a character may straddle two of them.

    Invalid UTF-8 is a DataError that names `source` and the byte offset, or U+FFFD with
    `errors="replace"`.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    read = 0
    for data, final in _with_end(chunks):
        start = read - len(decoder.getstate()[0])  # where what the decoder still holds begins
        read += len(data)
        try:
            text = decoder.decode(data, final)
        except UnicodeDecodeError as error:
            raise DataError(invalid_utf8(source, start + error.start)) from None
        if text:
            yield text


def _with_end(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    for data in chunks:
        yield data, False
    yield b"", True


def invalid_utf8(source: str, offset: int) -> str:
    """The message for bytes that are no UTF-8."""
    return (
        f"{source}: invalid UTF-8 at byte {offset}; convert the text, or pass errors='replace' "
        "to read U+FFFD in its place"
    )
