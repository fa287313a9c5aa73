"""Exact deduplication of lines in two passes over their hashes, in stages on the disk.

Hashes have 64 bits: among a billion different lines, the chance that one is taken for another's
repetition is 3 %.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from lmlab.cleaning.document import Criterion, Document, decide
from lmlab.cleaning.native import Hashes, line_hashes
from lmlab.cleaning.partitions import (
    PartitionWriter,
    count_partitions,
    read_partition,
    save_array,
)
from lmlab.errors import UserError
from lmlab.files import atomic_write
from lmlab.io.compression import read_plain

NAME = "exact_lines"
_ROW = [("hash", "<u8"), ("count", "u1")]


class LineStore:
    """The hashes of all lines of a set of files, and which of them occur more than once.

    First `writer(file)` for each file, then `merge` for each partition, then `repeated_in(file)`.
    """

    def __init__(self, directory: Path, files: int, partitions: int) -> None:
        self.directory, self.files, self.partitions = directory, files, partitions

    def writer(self, file: int) -> "LineWriter":
        """Return a context that takes the lines of one file."""
        return LineWriter(self._lines(file), self.partitions)

    def merge(self, partition: int) -> None:
        """Write the hashes of one partition that occur more than once."""
        rows = np.concatenate(
            [read_partition(self._lines(file), _ROW, partition) for file in range(self.files)]
        )
        hashes, counts = _counted(rows["hash"], rows["count"])
        save_array(self._repeated(partition), hashes[counts > 1])

    def repeated_in(self, file: int) -> Hashes:
        """Return the sorted hashes of the lines of a file that occur more than once in the set."""
        found = [np.empty(0, np.uint64)]
        for partition in range(self.partitions):
            mine = np.unique(read_partition(self._lines(file), _ROW, partition)["hash"])
            repeated = np.load(self._repeated(partition), mmap_mode="r")
            found.append(mine[_is_in(mine, repeated)])
        return np.sort(np.concatenate(found))

    def _repeated(self, partition: int) -> Path:
        return self.directory / f"repeated-{partition:05d}.npy"

    def _lines(self, file: int) -> Path:
        return self.directory / f"lines-{file:05d}.bin"


class LineWriter(PartitionWriter):
    """Takes texts, and stores the hashes of their lines."""

    def __init__(self, path: Path, partitions: int) -> None:
        super().__init__(path, _ROW, partitions)

    def add(self, documents: Sequence[Document]) -> None:
        """Add the lines of documents."""
        for document in documents:
            self.add_text(document.text.encode())

    def add_text(self, text: bytes) -> None:
        """Add the lines of a text."""
        found = line_hashes(text)
        hashes, counts = _counted(found, np.ones(len(found), np.int64))
        rows = np.empty(len(hashes), _ROW)
        rows["hash"], rows["count"] = hashes, np.minimum(counts, 2)
        self.add_rows(rows)


def _counted(hashes: Hashes, counts: np.ndarray[Any, Any]) -> tuple[Hashes, np.ndarray[Any, Any]]:
    """Return the different hashes, sorted, and the sum of the counts of each."""
    order = np.argsort(hashes, kind="stable")
    hashes, counts = hashes[order], counts[order].astype(np.int64)
    first = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]])[: len(hashes)])
    return hashes[first], np.add.reduceat(counts, first) if len(first) else counts


def _is_in(hashes: Hashes, stored: Hashes) -> Bool[np.ndarray, " count"]:
    """Return which hashes are in a sorted array."""
    if not len(stored):
        return np.zeros(len(hashes), bool)
    places = np.minimum(np.searchsorted(stored, hashes), len(stored) - 1)
    return np.asarray(stored[places] == hashes)


def drop_lines(text: bytes, repeated: Hashes) -> tuple[bytes, int]:
    """Return the text without the lines of these sorted hashes, and how many lines those are."""
    lines = _lines(text)
    dropped = _is_in(line_hashes(text), repeated)
    kept = [line for line, drop in zip(lines, dropped, strict=True) if not drop]
    return b"".join(kept), len(lines) - len(kept)


def _lines(text: bytes) -> list[bytes]:
    """Return the lines with their "\\n"."""
    lines = [line + b"\n" for line in text.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


class ExactLines:
    """The step that drops repeated lines; a document without any other text is removed."""

    name = NAME

    def __init__(self, repeated: Hashes, criteria: Sequence[Criterion]) -> None:
        self._repeated, self._criteria = repeated, criteria

    def __call__(self, documents: Sequence[Document]) -> list[Document]:
        """Return the documents without repeated lines."""
        for document in documents:
            data, dropped = drop_lines(document.text.encode(), self._repeated)
            text = data.decode()
            document.scores[f"{NAME}.dropped_lines"] = dropped
            document.scores[f"{NAME}.characters"] = len(text.strip())
            if decide(NAME, self._criteria, document) is None:
                document.text = text
        return list(documents)


def exact_line_deduplication(paths: Sequence[Path | str], out_dir: Path | str) -> None:
    """Write each text file into `out_dir` without the lines that occur more than once in the set.

    Every occurrence is dropped. Names stay; a file of which nothing is left is written empty.
    Lines end in "\\n" or "\\r\\n". Raises UserError when two files have one name.
    """
    files, target = [Path(path) for path in paths], Path(out_dir)
    check_apart(files, target)
    target.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".lines.", dir=target))
    try:
        sizes = [path.stat().st_size for path in files]
        store = LineStore(work, len(files), count_partitions(sizes))
        for number, path in enumerate(files):
            with store.writer(number) as writer:
                for block in _whole_lines(path):
                    writer.add_text(block)
        for partition in range(store.partitions):
            store.merge(partition)
        for number, path in enumerate(files):
            repeated = store.repeated_in(number)
            with atomic_write(target / path.name, "wb") as file:
                for block in _whole_lines(path):
                    file.write(drop_lines(block, repeated)[0])
    finally:
        shutil.rmtree(work, ignore_errors=True)


def check_apart(paths: Sequence[Path], out_dir: Path) -> None:
    """Raise UserError when two files would be written under one name, or over an input."""
    names: dict[str, Path] = {}
    for path in paths:
        if (other := names.setdefault(path.name, path)) != path:
            raise UserError(f"{other} and {path} have one name in {out_dir}; rename one")
        if path.resolve() == (out_dir / path.name).resolve():
            raise UserError(f"{path} would be overwritten; give another output directory")


def _whole_lines(path: Path) -> Iterator[bytes]:
    """Yield a file in blocks of whole lines."""
    pending = bytearray()
    for block in read_plain(path):
        cut = block.rfind(b"\n") + 1
        if cut:
            yield bytes(pending) + block[:cut]
            pending = bytearray(block[cut:])
        else:
            pending += block
    if pending:
        yield bytes(pending)
