"""Documents of one input file: web archives, HTML, JSON lines, Parquet and plain text.

What cannot be read is passed over and reported with its offset; it does not end the work. An error
of the disk does: the file may be intact.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Literal

from lmlab.cleaning.document import Document
from lmlab.cleaning.pieces import Problem, Report, bounded_pieces, decode
from lmlab.cleaning.pipeline_config import ReadConfig
from lmlab.errors import DataError
from lmlab.io.compression import SUFFIXES, read_blocks, read_plain
from lmlab.io.formats import recognize_format

Advance = Callable[[int], object]
"""Is called with the number of bytes that were read from the disk."""
InputFormat = Literal["warc", "html", "jsonl", "parquet", "text", "json", "arc"]
_ARCHIVES = (".warc", ".wet", ".wat")
_PARQUET = b"PAR1"


def input_format(path: Path) -> InputFormat:
    """Return the format of a file, by its name without .gz or .zst, then by its content.

    Raises DataError when it cannot be read.
    """
    name = path.name.lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    if name.endswith(_ARCHIVES):
        return "warc"
    if name.endswith(".parquet") or next(read_plain(path), b"").startswith(_PARQUET):
        return "parquet"
    if name.endswith((".html", ".htm")):
        return "html"
    head = next(read_blocks(path), b"")
    if head.startswith(b"filedesc://"):
        return "arc"
    return "warc" if head.startswith(b"WARC/") else recognize_format(path, head)


def read_documents(
    path: Path, config: ReadConfig, report: Report, advance: Advance = lambda _: None
) -> Iterator[Document]:
    """Yield the documents of a file in order; `report` is called for what is passed over.

    Archives and HTML files give `raw`, everything else `text`. Raises OSError when the disk fails.
    """
    try:
        kind = input_format(path)
    except DataError as error:
        _raise_of_disk(error)
        report(Problem(0, _reason(path, error)))
        return
    if kind == "arc":
        report(Problem(0, "is an ARC file, the format before WARC; convert it: warcio recompress"))
    elif kind == "warc":
        from lmlab.cleaning.archives import read_archive

        yield from read_archive(path, config, report, advance)
    elif kind == "parquet":
        from lmlab.cleaning.rows import read_parquet

        yield from read_parquet(path, config, report, advance)
    elif kind == "jsonl":
        from lmlab.cleaning.rows import read_json_lines

        yield from read_json_lines(path, _blocks(path, report, advance), config, report)
    elif kind == "json":
        report(Problem(0, "is JSON, but not one object a line; convert it: jq -c '.[]'"))
    else:
        yield from _read_text(path, kind == "html", config, report, advance)


def _read_text(
    path: Path, is_html: bool, config: ReadConfig, report: Report, advance: Advance
) -> Iterator[Document]:
    separator = None if is_html else config.separator_bytes
    blocks = _blocks(path, report, advance)
    for offset, piece in bounded_pieces(blocks, separator, config.max_document_bytes, report):
        if not piece.strip():
            continue
        document = Document(f"{path}:{offset}")
        if is_html:
            document.raw = bytes(piece)
        else:
            document.text = decode(piece, document.metadata)
        yield document


def _blocks(path: Path, report: Report, advance: Advance) -> Iterator[bytes]:
    """Yield the content of a file; damage is reported, and ends it."""
    done = 0
    blocks = read_blocks(path, advance)
    try:
        for block in chain([next(blocks, b"").removeprefix(b"\xef\xbb\xbf")], blocks):
            yield block
            done += len(block)
    except DataError as error:
        _raise_of_disk(error)
        report(Problem(done, _reason(path, error)))


def _raise_of_disk(error: DataError) -> None:
    """Raise the OSError behind an error, if any: the file may be intact, and is read again."""
    if isinstance(error.__context__, OSError):
        raise error.__context__ from None


def _reason(path: Path, error: DataError) -> str:
    return str(error).removeprefix(f"{path}: ")
