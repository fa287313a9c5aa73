"""Documents out of one file: plain text or .jsonl, packed or not, streamed."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import zstandard

from lmlab.errors import DataError
from lmlab.tokenizer.zstd import unpack

BLOCK = 1 << 20
# A document is held in memory whole; a file this long without a separator is hardly one.
MAX_DOCUMENT = 1 << 30
BOM = b"\xef\xbb\xbf"

Advance = Callable[[int], object]


class InvalidText(DataError):
    """A file's bytes are no UTF-8."""


def read_documents(
    path: Path, *, separator: str | None, jsonl_field: str, advance: Advance = lambda _: None
) -> Iterator[str]:
    """Yield the documents of `path` in order, verbatim; those of white space alone are left out.

    A .jsonl (or .ndjson) file has one in `jsonl_field` of each line; in any other file they stand
    between `separator`s, or with None the file is one. `advance` is told the bytes read from the
    disk. Raises DataError naming the file, and the byte or line, for what cannot be read.
    """
    blocks = read_blocks(path, advance)
    packed = path.suffix in (".gz", ".zst")
    if (path.with_suffix("") if packed else path).suffix in (".jsonl", ".ndjson"):
        texts = _jsonl(path, blocks, jsonl_field)
    else:
        pieces = split_blocks(blocks, separator.encode() if separator is not None else None, path)
        texts = (_decode(path, offset, piece) for offset, piece in pieces)
    return (text for text in texts if not text.isspace() and text)


def read_blocks(path: Path, advance: Advance) -> Iterator[bytes]:
    """Yield the unpacked bytes of `path` in blocks; a packed file that is cut short is an error."""
    try:
        if path.suffix == ".gz":
            yield from _gzip_blocks(path, advance)
        elif path.suffix == ".zst":
            yield from unpack(_plain_blocks(path, advance))
        else:
            yield from _plain_blocks(path, advance)
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise DataError(
            f"{path}: damaged or cut short ({error}); pack or download it again"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def split_blocks(
    blocks: Iterable[bytes], separator: bytes | None, path: Path
) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, piece) for what stands between separators, as bytes.split does."""
    pending = bytearray()
    offset = 0
    for block in blocks:
        # Only what is new can complete a separator: rare separators must not cost quadratic time.
        start = max(0, len(pending) - len(separator) + 1) if separator else 0
        pending += block
        if separator and pending.find(separator, start) >= 0:
            *pieces, rest = bytes(pending).split(separator)
            for piece in pieces:
                yield offset, piece
                offset += len(piece) + len(separator)
            pending = bytearray(rest)
        if len(pending) > MAX_DOCUMENT:
            raise DataError(
                f"{path}: a document of more than {MAX_DOCUMENT >> 20} MiB starts at byte "
                f"{offset}: set data.separator to what stands between documents, or split the file"
            )
    yield offset, bytes(pending)


def _plain_blocks(path: Path, advance: Advance) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            advance(len(block))
            yield block


def _gzip_blocks(path: Path, advance: Advance) -> Iterator[bytes]:
    with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as file:
        seen = 0
        while block := file.read(BLOCK):
            advance(raw.tell() - seen)
            seen = raw.tell()
            yield block


def _decode(path: Path, offset: int, piece: bytes) -> str:
    if offset == 0 and piece.startswith(BOM):
        offset, piece = len(BOM), piece[len(BOM) :]
    try:
        return piece.decode()
    except UnicodeDecodeError as error:
        raise InvalidText(
            f"{path}: invalid UTF-8 at byte {offset + error.start}: convert the file to UTF-8, or "
            "leave it out"
        ) from None


def _jsonl(path: Path, blocks: Iterable[bytes], field: str) -> Iterator[str]:
    for number, (offset, line) in enumerate(split_blocks(blocks, b"\n", path), 1):
        text = _decode(path, offset, line)
        if not text or text.isspace():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            raise DataError(
                f"{path}:{number}: not a JSON object; a .jsonl file has one on each line"
            ) from None
        if not isinstance(row, dict) or field not in row:
            has = ", ".join(map(repr, row)) if isinstance(row, dict) else "no object"
            raise DataError(
                f"{path}:{number}: no field {field!r} (there is {has or 'none'}); "
                "set data.jsonl_field to the one that holds the text"
            )
        value = row[field]
        if not isinstance(value, str):
            raise DataError(f"{path}:{number}: field {field!r} holds {value!r:.40}, not text")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidText(
                f"{path}:{number}: field {field!r} has half a surrogate pair, which is no text"
            ) from None
        yield value
