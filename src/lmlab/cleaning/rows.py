"""Documents in the rows of JSON lines and Parquet files."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lmlab.cleaning.document import Document
from lmlab.cleaning.pieces import Problem, Report, bounded_pieces, without_surrogates
from lmlab.cleaning.pipeline_config import ReadConfig
from lmlab.errors import UserError

_ROWS = 64  # of a Parquet file, held at a time


def read_json_lines(
    path: Path, blocks: Iterable[bytes], config: ReadConfig, report: Report
) -> Iterator[Document]:
    """Yield the document in `config.field` of each line; other fields become metadata."""
    lines = bounded_pieces(blocks, b"\n", config.max_document_bytes, report)
    for offset, line in lines:
        if not line or line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            report(Problem(offset, "no JSON object"))
            continue
        document = _from_row(path, offset, row, config)
        if isinstance(document, Problem):
            report(document)
        else:
            yield document


def read_parquet(
    path: Path, config: ReadConfig, report: Report, advance: Any
) -> Iterator[Document]:
    """Yield the document in column `config.field` of each row; other columns become metadata."""
    try:
        import pyarrow.parquet as parquet
        from pyarrow.lib import ArrowException
    except ImportError:
        raise UserError(
            "Parquet files are read by pyarrow; install it with `pip install 'lmlab[parquet]'`"
        ) from None
    try:
        file = parquet.ParquetFile(path)
    except (ArrowException, OSError, ValueError) as error:
        _raise_of_disk(error)
        report(Problem(0, f"no intact Parquet file: {_line(error)}"))
        return
    with file:
        first = 0
        total = max(file.num_row_groups, 1)
        for group in range(file.num_row_groups):
            row_count = file.metadata.row_group(group).num_rows
            number = first
            try:
                for batch in file.iter_batches(_ROWS, [group], use_threads=False):
                    for row in _rows(batch):
                        yield from _parquet_row(path, number, row, config, report)
                        number += 1
            except (ArrowException, OSError, ValueError) as error:
                _raise_of_disk(error)
                report(Problem(number, f"a damaged row group: {_line(error)}"))
            first += row_count
            advance(path.stat().st_size // total)


def _rows(batch: Any) -> Iterator[dict[str, Any] | None]:
    """Yield the rows of a batch; None for one with text that is not UTF-8."""
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError:
        for place in range(len(batch)):
            try:
                yield from batch.slice(place, 1).to_pylist()
            except UnicodeDecodeError:
                yield None
        return
    yield from rows


def _raise_of_disk(error: Exception) -> None:
    """Raise an error of the operating system again: the file may be intact, and is read again."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _parquet_row(
    path: Path, number: int, row: dict[str, Any] | None, config: ReadConfig, report: Report
) -> Iterator[Document]:
    if row is None:
        document: Document | Problem = Problem(number, "a row with text that is not UTF-8")
    else:
        document = _from_row(path, number, row, config)
    if isinstance(document, Problem):
        report(document)
    else:
        yield document


def _from_row(path: Path, place: int, row: Any, config: ReadConfig) -> Document | Problem:
    if not isinstance(row, dict):
        return Problem(place, "no JSON object")
    text = row.pop(config.field, None)
    if not isinstance(text, str):
        has = ", ".join(sorted(map(repr, row))) or "none"
        return Problem(
            place, f"no text in field {config.field!r} (other fields: {has}); set read.field"
        )
    if len(text) > config.max_document_bytes:
        return Problem(
            place,
            f"a document of {len(text):,} characters, more than "
            f"read.max_document_bytes={config.max_document_bytes:,}",
        )
    return Document(f"{path}:{place}", without_surrogates(text), metadata=_plain(row))


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return what JSON and UTF-8 can hold: other values as text."""
    plain: dict[str, Any] = json.loads(
        without_surrogates(json.dumps(row, ensure_ascii=False, default=str))
    )
    return plain


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
