"""Documents of one file: plain text or JSON lines, compressed or not, streamed as UTF-8."""

import codecs
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Literal

from lmlab.data.splitting import strip
from lmlab.errors import DataError
from lmlab.io.compression import Advance, NotText, read_blocks
from lmlab.io.formats import BOM, recognize_format

# A document is held in memory whole; a file this long without a separator is hardly one.
MAX_DOCUMENT = 1 << 30
_PIECE = 1 << 20
_AS_TEXT = "set data.format=text to read the file as plain text"

Document = bytes | bytearray
"""A document as valid UTF-8."""


def read_documents(
    path: Path,
    *,
    separator: str | None,
    jsonl_field: str,
    format: Literal["text", "jsonl"] | None = None,
    advance: Advance = lambda _: None,
) -> Iterator[Document]:
    """Yield the documents of `path` in order, verbatim; those of white space alone are left out.

    JSON lines have one in `jsonl_field` of each line; in plain text they stand between
    `separator`s, or with None the file is one. Without `format` the name and the content decide
    which of both it is. `advance` is called with the bytes read from the disk. Raises DataError
    that names the file, and the byte or line, for what cannot be read; NotText for what is not
    UTF-8.
    """
    blocks = read_blocks(path, advance)
    head = next(blocks, b"")
    blocks = chain([head], blocks)
    recognized = format or recognize_format(path, head)
    if recognized == "json":
        raise DataError(
            f"{path}: is JSON, but not one object a line; convert it, e.g. "
            f"jq -c '.[]' {path.name} > NEW.jsonl, or {_AS_TEXT}"
        )
    if recognized == "jsonl":
        documents = _json_lines(path, blocks, jsonl_field)
    else:
        documents = _plain_text(path, blocks, separator)
    return (document for document in documents if len(strip(document)))


def is_text(path: Path) -> bool:
    """Return whether all of `path` is UTF-8 text; NUL bytes mean that it is not."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for block in read_blocks(path):
            if b"\0" in block:
                return False
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except (UnicodeDecodeError, NotText):
        return False
    return True


def split_blocks(
    blocks: Iterable[bytes], separator: bytes | None, path: Path
) -> Iterator[tuple[int, Document]]:
    """Yield (offset, piece) for what stands between separators, as bytes.split does."""
    pending = bytearray()
    offset = 0
    for block in blocks:
        # Only new bytes can complete a separator: rare separators must not cost quadratic time.
        start = max(0, len(pending) - len(separator) + 1) if separator else 0
        pending += block
        if separator and (end := pending.find(separator, start)) >= 0:
            # A long piece is handed on without a copy.
            rest = bytes(pending[end + len(separator) :])
            del pending[end:]
            yield offset, pending
            offset += end + len(separator)
            *pieces, rest = rest.split(separator)
            for piece in pieces:
                yield offset, piece
                offset += len(piece) + len(separator)
            pending = bytearray(rest)
        if len(pending) > MAX_DOCUMENT:
            raise DataError(
                f"{path}: a document of more than {MAX_DOCUMENT >> 20} MiB starts at byte "
                f"{offset}: set data.separator to what stands between documents, or split the file"
            )
    yield offset, pending


def pieces_of(document: Document) -> Iterator[str]:
    """Yield the text of a document in pieces of at most a megabyte."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with memoryview(document) as view:
        for start in range(0, len(view), _PIECE):
            yield decoder.decode(view[start : start + _PIECE])
    decoder.decode(b"", final=True)


def _plain_text(path: Path, blocks: Iterable[bytes], separator: str | None) -> Iterator[Document]:
    for offset, piece in split_blocks(
        blocks, separator.encode() if separator is not None else None, path
    ):
        if offset == 0 and piece.startswith(BOM):
            document: Document = piece[len(BOM) :]
            _check_utf8(path, len(BOM), document)
        else:
            document = piece
            _check_utf8(path, offset, document)
        yield document


def _check_utf8(path: Path, offset: int, document: Document) -> None:
    done = 0
    try:
        with memoryview(document) as view:
            while done < len(view):
                end = min(done + _PIECE, len(view))
                done += codecs.utf_8_decode(view[done:end], "strict", end == len(view))[1]
    except UnicodeDecodeError as error:
        raise NotText(
            f"{path}: invalid UTF-8 at byte {offset + done + error.start}: convert the file to "
            "UTF-8, or leave it out"
        ) from None


def _json_lines(path: Path, blocks: Iterable[bytes], field: str) -> Iterator[Document]:
    for number, (offset, line) in enumerate(split_blocks(blocks, b"\n", path), 1):
        if offset == 0 and line.startswith(BOM):
            offset, line = len(BOM), line[len(BOM) :]
        if not line or line.isspace():
            continue
        _check_utf8(path, offset, line)
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError):
            raise DataError(
                f"{path}:{number}: not a JSON object, as every line of JSON lines is; {_AS_TEXT}"
            ) from None
        if not isinstance(row, dict) or field not in row:
            has = ", ".join(map(repr, row)) if isinstance(row, dict) else "no object"
            raise DataError(
                f"{path}:{number}: no field {field!r} (there is {has or 'none'}); "
                f"set data.jsonl_field to the one that holds the text, or {_AS_TEXT}"
            )
        value = row[field]
        if not isinstance(value, str):
            raise DataError(f"{path}:{number}: field {field!r} holds {value!r:.40}, not text")
        try:
            yield value.encode()
        except UnicodeEncodeError:
            raise NotText(
                f"{path}:{number}: field {field!r} has half a surrogate pair, which is not text"
            ) from None
