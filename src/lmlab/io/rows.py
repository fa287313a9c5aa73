"""Texts in the rows of JSON lines and Parquet files, streamed."""

import codecs
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from lmlab.errors import DataError
from lmlab.files import is_plain_file
from lmlab.io.compression import Advance, NotText, read_blocks
from lmlab.io.formats import BOM, recognize_format

MAX_DOCUMENT = 1 << 30
"""Bytes: a document is held in memory whole; one this long without a separator is hardly one."""
_PIECE = 1 << 20
_ROWS = 64  # of a Parquet file, held at a time
_PARQUET = b"PAR1"


def is_parquet(path: Path) -> bool:
    """Return whether a regular file begins as Parquet files do."""
    try:
        if not is_plain_file(path):
            return False
        with path.open("rb") as file:
            return file.read(len(_PARQUET)) == _PARQUET
    except OSError:
        return False


def has_rows(path: Path) -> bool:
    """Return whether a file is Parquet or JSON lines.

    Raises DataError when it cannot be read, or is JSON that is not one object a line.
    """
    if is_parquet(path):
        return True
    if not is_plain_file(path):
        return False
    kind = recognize_format(path, next(read_blocks(path), b""))
    if kind == "json":
        raise DataError(
            f"{path}: is JSON, but not one object a line; convert it, e.g. "
            f"jq -c '.[]' {path.name} > NEW.jsonl"
        )
    return kind == "jsonl"


def read_texts(path: Path, field: str, setting: str) -> Iterator[str]:
    """Yield the text in `field` of each row of a file for which `has_rows`.

    `setting` names what chooses the field. Raises DataError that names the file and the row.
    """
    if is_parquet(path):
        yield from parquet_texts(path, field, setting)
    else:
        for text in json_texts(path, read_blocks(path), field, setting, ""):
            yield text.decode()


def json_texts(
    path: Path, blocks: Iterable[bytes], field: str, setting: str, otherwise: str
) -> Iterator[bytes]:
    """Yield the text in `field` of each line, as UTF-8; empty lines are left out.

    `otherwise` is further advice. Raises DataError that names the file and the line, NotText for
    what is not UTF-8.
    """
    for number, (offset, line) in enumerate(split_blocks(blocks, b"\n", path), 1):
        if offset == 0 and line.startswith(BOM):
            offset, line = len(BOM), line[len(BOM) :]
        if not line or line.isspace():
            continue
        check_utf8(path, offset, line)
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError):
            advice = f"; {otherwise}" if otherwise else ""
            raise DataError(
                f"{path}:{number}: not a JSON object, as every line of JSON lines is{advice}"
            ) from None
        if not isinstance(row, dict) or field not in row:
            has = ", ".join(map(repr, row)) if isinstance(row, dict) else "no object"
            advice = f", or {otherwise}" if otherwise else ""
            raise DataError(
                f"{path}:{number}: no field {field!r} (there is {has or 'none'}); "
                f"set {setting} to the one that holds the text{advice}"
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


def parquet_texts(
    path: Path, field: str, setting: str, advance: Advance = lambda _: None
) -> Iterator[str]:
    """Yield the text in column `field` of each row.

    Raises DataError when pyarrow is missing, the file is damaged, or the column holds no text.
    """
    try:
        import pyarrow.parquet
        from pyarrow.lib import ArrowException
    except ImportError:
        raise DataError(
            f"{path}: Parquet files need pyarrow; install it with `pip install 'lmlab[parquet]'`"
        ) from None
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if field not in names:
                raise DataError(
                    f"{path}: no column {field!r} (there is {', '.join(map(repr, names))}); "
                    f"set {setting} to the one that holds the text"
                )
            groups = max(file.num_row_groups, 1)
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(_ROWS, [group], [field], use_threads=False):
                    for value in batch.column(0).to_pylist():
                        number += 1
                        if not isinstance(value, str):
                            raise DataError(
                                f"{path}: row {number}: column {field!r} holds {value!r:.40}, "
                                "not text"
                            )
                        yield value
                advance(path.stat().st_size // groups)
    except UnicodeDecodeError:
        raise DataError(
            f"{path}: column {field!r} is not UTF-8 in one of the rows {number + 1} to "
            f"{number + _ROWS}; convert it, or leave the file out"
        ) from None
    except (ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read after row {number}: {reason}") from None


def split_blocks(
    blocks: Iterable[bytes], separator: bytes | None, path: Path
) -> Iterator[tuple[int, bytes | bytearray]]:
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


def check_utf8(path: Path, offset: int, document: bytes | bytearray) -> None:
    """Raise NotText that names the byte, counted from `offset`, unless a document is UTF-8."""
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
