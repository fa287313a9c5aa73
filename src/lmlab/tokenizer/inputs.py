"""Text from files, streamed: decompressed, decoded, and invalid UTF-8 named by its byte."""

import codecs
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lmlab.errors import DataError
from lmlab.io.compression import is_plain_text, read_blocks
from lmlab.tokenizer.native import Errors, InvalidUtf8, Sink


def decode_chunks(chunks: Iterable[bytes], source: str, errors: Errors = "strict") -> Iterator[str]:
    """Yield the text of consecutive pieces of bytes; a character may straddle two of them.

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
    """Return the error for bytes of `source` that are not UTF-8; `problem` names the byte."""
    return DataError(
        f"{source}: {problem}; convert the text, or read U+FFFD in its place with errors='replace' "
        "(--errors replace)"
    )


def add_file(sink: Sink, path: Path) -> None:
    """Add one file to a native sink as a text of its own, decompressed where it is compressed."""
    try:
        if is_plain_text(path):
            sink.add_file(path)
        else:  # compressed, a pipe, or not readable
            for chunk in read_blocks(path):
                sink.add(chunk)
        sink.end_text()
    except InvalidUtf8 as error:
        raise invalid_utf8(str(path), error) from None
    except OSError as error:
        if error.filename is None:  # writing failed, not reading
            raise
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def byte_bar(paths: Sequence[Path], description: str, *, show: bool) -> "Iterator[tqdm[Any]]":
    """Show a progress bar over the bytes of files, with a total when none is compressed."""
    plain = bool(paths) and all(map(is_plain_text, paths))
    total = sum(path.stat().st_size for path in paths) if plain else None
    with tqdm(total=total, desc=description, unit="B", unit_scale=True, disable=not show) as bar:
        yield bar
        if total is not None:
            bar.update(total - bar.n)


def counted(chunks: Iterable[bytes], advance: Callable[[int], object]) -> Iterator[bytes]:
    """Yield the chunks, and call `advance` with the size of each after it was used."""
    for chunk in chunks:
        yield chunk
        advance(len(chunk))


def gather(pieces: Iterable[str], size: int) -> Iterator[str]:
    """Yield the pieces joined to texts of at least `size` characters; the last may be shorter."""
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
