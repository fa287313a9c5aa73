"""Rows on the disk, divided by a hash, so that each part of them fits into memory."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from jaxtyping import UInt64

from lmlab.files import atomic_write

Rows = np.ndarray[Any, Any]
"""A structured array whose first field is the hash."""
_FLUSH = 1 << 20  # rows


class PartitionWriter:
    """A file of rows that grows by sorted runs; it appears when the block ends without an error.

    Memory holds one run. `<path>.json` holds where each partition begins in each run.
    """

    def __init__(self, path: Path, dtype: Any, partitions: int) -> None:
        self._path, self._dtype, self._partitions = path, np.dtype(dtype), partitions
        self._held: list[Rows] = []
        self._count = 0
        self._runs: list[list[int]] = []
        self._written = 0
        self._context = atomic_write(path, "wb")
        self._file: IO[bytes]

    def __enter__(self) -> Self:
        self._file = self._context.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._flush()
            with atomic_write(_index(self._path)) as file:
                json.dump(self._runs, file)
        self._context.__exit__(*error)

    def add_rows(self, rows: Rows) -> None:
        """Append rows."""
        self._held.append(rows)
        self._count += len(rows)
        if self._count >= _FLUSH:
            self._flush()

    def _flush(self) -> None:
        rows = np.concatenate([np.empty(0, self._dtype), *self._held])
        part = partition_of(rows[self._dtype.names[0]], self._partitions)
        bounds = np.searchsorted(np.sort(part), np.arange(self._partitions + 1)) + self._written
        self._file.write(rows[np.argsort(part, kind="stable")].tobytes())
        self._runs.append(bounds.tolist())
        self._written += len(rows)
        self._held, self._count = [], 0


def partition_of(hashes: UInt64[np.ndarray, " count"], partitions: int) -> np.ndarray[Any, Any]:
    """Return to which partition each hash belongs."""
    return hashes % np.uint64(partitions)


def read_partition(path: Path, dtype: Any, partition: int) -> Rows:
    """Return the rows of one partition of a file, in the order in which they were added."""
    dtype = np.dtype(dtype)
    runs = json.loads(_index(path).read_text())
    parts = []
    with path.open("rb") as file:
        for bounds in runs:
            start, end = bounds[partition], bounds[partition + 1]
            file.seek(start * dtype.itemsize)
            parts.append(np.frombuffer(file.read((end - start) * dtype.itemsize), dtype))
    return np.concatenate([np.empty(0, dtype), *parts])


def save_array(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Publish an array as a .npy file."""
    with atomic_write(path, "wb") as file:
        np.save(file, array)


def count_partitions(sizes: Iterable[int]) -> int:
    """Return a number of partitions that depends on the size of the input alone, one for 16 MiB."""
    return min(4096, max(8, sum(sizes) >> 24))


def _index(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
