"""Files of documents that a cleaning run writes: jsonl.zst or Parquet."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal, Self

import zstandard

from lmlab.cleaning.document import Document, Removal
from lmlab.cleaning.pieces import bounded_pieces, without_surrogates
from lmlab.errors import UserError
from lmlab.files import atomic_write
from lmlab.io.compression import read_blocks

Format = Literal["jsonl", "parquet"]
SUFFIXES: dict[Format, str] = {"jsonl": ".jsonl.zst", "parquet": ".parquet"}
_LEVEL, _FAST_LEVEL = 3, 1
_ROWS = 1024  # in a row group, at most
_CHARACTERS = 16 << 20  # in a row group, about


class JsonLinesWriter:
    """A jsonl.zst file, one document a line; it appears when the block ends without an error.

    `brief`: it is removed when the run ends, so it is packed fast rather than well.
    """

    def __init__(self, path: Path, *, brief: bool = False) -> None:
        self._context = atomic_write(path, "wb")
        self._level = _FAST_LEVEL if brief else _LEVEL
        self._file: IO[bytes]
        self._packed: Any

    def __enter__(self) -> Self:
        self._file = self._context.__enter__()
        compressor = zstandard.ZstdCompressor(level=self._level, write_checksum=True)
        self._packed = compressor.stream_writer(self._file, closefd=False)
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            if error[0] is None:
                self._packed.close()
        except BaseException as failed:
            self._context.__exit__(type(failed), failed, failed.__traceback__)
            raise
        self._context.__exit__(*error)

    def add(self, documents: Sequence[Document]) -> None:
        """Append documents."""
        self._packed.write(b"".join(map(to_line, documents)))


class ParquetWriter:
    """A Parquet file: id, text, metadata and scores (as JSON); it appears as JsonLinesWriter's."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise UserError(
                "format=parquet needs pyarrow; install it with `pip install 'lmlab[parquet]'`"
            ) from None
        self._arrow, self._parquet = pyarrow, pyarrow.parquet
        names = ("id", "text", "metadata", "scores")
        self._schema = pyarrow.schema([(name, pyarrow.large_string()) for name in names])
        self._context = atomic_write(path, "wb")
        self._held: list[Document] = []
        self._size = 0
        self._writer: Any

    def __enter__(self) -> Self:
        file = self._context.__enter__()
        self._writer = self._parquet.ParquetWriter(file, self._schema, compression="zstd")
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            if error[0] is None:
                self._flush()
                self._writer.close()
        except BaseException as failed:
            self._context.__exit__(type(failed), failed, failed.__traceback__)
            raise
        self._context.__exit__(*error)

    def add(self, documents: Sequence[Document]) -> None:
        """Append documents."""
        for document in documents:
            self._held.append(document)
            self._size += len(document.text)
            # Row groups must not depend on how the documents were batched.
            if len(self._held) >= _ROWS or self._size >= _CHARACTERS:
                self._flush()

    def _flush(self) -> None:
        columns = [
            [document.id for document in self._held],
            [document.text for document in self._held],
            [_json(document.metadata) for document in self._held],
            [_json(document.scores) for document in self._held],
        ]
        self._writer.write_table(self._arrow.table(columns, schema=self._schema))
        self._held, self._size = [], 0


def writer(path: Path, format: Format) -> JsonLinesWriter | ParquetWriter:
    """Return a writer of documents."""
    return ParquetWriter(path) if format == "parquet" else JsonLinesWriter(path)


def to_line(document: Document) -> bytes:
    """Return a document as one line of JSON, with its removal if it was removed."""
    row: dict[str, Any] = {
        "id": document.id,
        "text": document.text,
        "metadata": document.metadata,
        "scores": document.scores,
    }
    if (removal := document.removal) is not None:
        row["removal"] = {
            "step": removal.step,
            "reason": removal.reason,
            "score": removal.score,
            "spans": removal.spans,
        }
    return _json(row).encode() + b"\n"


def read_written(path: Path, advance: Any = lambda _: None) -> Iterator[Document]:
    """Yield the documents of a file that a cleaning run wrote; raises DataError when it is damaged.

    `advance` is called with the bytes read from the disk.
    """
    if path.suffix == ".parquet":
        rows = _parquet_rows(path, advance)
    else:
        lines = bounded_pieces(read_blocks(path, advance), b"\n", 1 << 40, lambda problem: None)
        rows = (json.loads(line) for _, line in lines if line)
    for row in rows:
        document = Document(row["id"], row["text"], None, row["metadata"], row["scores"])
        if (removal := row.get("removal")) is not None:
            spans = tuple((start, end) for start, end in removal.pop("spans"))
            document.removal = Removal(**removal, spans=spans)
        yield document


def _parquet_rows(path: Path, advance: Any) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(64, use_threads=False):
            for row in batch.to_pylist():
                yield row | {name: json.loads(row[name]) for name in ("metadata", "scores")}
    advance(path.stat().st_size)


def _json(value: Any) -> str:
    return without_surrogates(json.dumps(value, ensure_ascii=False))
