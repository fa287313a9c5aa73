"""Documents of one file: plain text, JSON lines or Parquet, streamed as UTF-8."""

import codecs
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Literal

from lmlab.data.splitting import strip
from lmlab.errors import DataError
from lmlab.io.compression import Advance, NotText, read_blocks
from lmlab.io.formats import BOM, recognize_format
from lmlab.io.rows import check_utf8, is_parquet, json_texts, parquet_texts, split_blocks

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

    JSON lines have one in `jsonl_field` of each line, Parquet files in that column of each row; in
    plain text they stand between `separator`s, or with None the file is one. Without `format` the
    name and the content decide which it is. `advance` is called with the bytes read from the disk.
    Raises DataError that names the file, and the byte or line, for what cannot be read; NotText for
    what is not UTF-8.
    """
    if format is None and is_parquet(path):
        texts = parquet_texts(path, jsonl_field, "data.jsonl_field", advance)
        return (text.encode() for text in texts if text and not text.isspace())
    blocks = read_blocks(path, advance)
    head = next(blocks, b"")
    blocks = chain([head], blocks)
    recognized = format or recognize_format(path, head)
    documents: Iterator[Document]
    if recognized == "json":
        raise DataError(
            f"{path}: is JSON, but not one object a line; convert it, e.g. "
            f"jq -c '.[]' {path.name} > NEW.jsonl, or {_AS_TEXT}"
        )
    if recognized == "jsonl":
        documents = json_texts(path, blocks, jsonl_field, "data.jsonl_field", _AS_TEXT)
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
            check_utf8(path, len(BOM), document)
        else:
            document = piece
            check_utf8(path, offset, document)
        yield document
