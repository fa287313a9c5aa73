"""Text from files: plain, `.gz` or `.zst`, streamed, with the byte that is no UTF-8 named."""

import codecs
import contextlib
import functools
import gzip
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import zstandard
from tqdm import tqdm

from lmlab.errors import DataError
from lmlab.files import is_plain_file
from lmlab.tokenizer.native import Errors, InvalidUtf8, Sink
from lmlab.tokenizer.zstd import unpack

CHUNK = 1 << 20
_COMPRESSED = (".gz", ".zst")


def read_chunks(path: Path, chunk: int = CHUNK) -> Iterator[bytes]:
    """The content of a file in pieces of about `chunk` bytes, decompressed by its suffix.

    A file that cannot be read, or whose compressed content is cut or broken, is a DataError.
    """
    try:
        with path.open("rb") as file:
            if path.suffix == ".zst":
                yield from unpack(iter(functools.partial(file.read, 1 << 14), b""))
                return
            stream: Any = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
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
    for data in itertools.chain(chunks, [None]):
        start = read - len(decoder.getstate()[0])  # where what the decoder still holds begins
        read += len(data or b"")
        try:
            text = decoder.decode(data or b"", data is None)
        except UnicodeDecodeError as error:
            problem = f"invalid UTF-8 at byte {start + error.start}"
            raise invalid_utf8(source, problem) from None
        if text:
            yield text


def invalid_utf8(source: str, problem: object) -> DataError:
    """The error for bytes of `source` that are no UTF-8; `problem` names the byte."""
    return DataError(
        f"{source}: {problem}; convert the text, or read U+FFFD in its place with errors='replace'"
    )


def add_file(sink: Sink, path: Path) -> None:
    """Give a native sink one file as a text of its own, decompressed by its suffix."""
    try:
        if _is_plain_text(path):
            sink.add_file(path)
        else:  # compressed, a pipe, or what is an error anyway
            for chunk in read_chunks(path):
                sink.add(chunk)
        sink.end_text()
    except InvalidUtf8 as error:
        raise invalid_utf8(str(path), error) from None
    except OSError as error:
        if error.filename is None:  # it was writing that failed
            raise
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _is_plain_text(path: Path) -> bool:
    return path.suffix not in _COMPRESSED and is_plain_file(path)


@contextlib.contextmanager
def byte_bar(paths: Sequence[Path], description: str, *, show: bool) -> "Iterator[tqdm[Any]]":
    """A progress bar over the bytes of files, with an end in sight when none is compressed."""
    plain = bool(paths) and all(map(_is_plain_text, paths))
    total = sum(path.stat().st_size for path in paths) if plain else None
    with tqdm(total=total, desc=description, unit="B", unit_scale=True, disable=not show) as bar:
        yield bar
        if total is not None:
            bar.update(total - bar.n)


def counted(chunks: Iterable[bytes], advance: Callable[[int], object]) -> Iterator[bytes]:
    """The same chunks; `advance` is told the size of each that has passed."""
    for chunk in chunks:
        yield chunk
        advance(len(chunk))


def gather(pieces: Iterable[str], size: int) -> Iterator[str]:
    """The pieces joined to texts of at least `size` characters, but for the last."""
    held: list[str] = []
    length = 0
    for piece in pieces:
        held.append(piece)
        length += len(piece)
        if length >= size:
            yield "".join(held)
            held, length = [], 0
    if held:
        yield "".join(held)
