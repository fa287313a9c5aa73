"""Sets of hashes in one file, of which single ones are read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lmlab.cleaning.native import Hashes
from lmlab.files import atomic_write


def save_sets(path: Path, keys: Sequence[int], sets: Sequence[Hashes]) -> None:
    """Publish sets under ascending keys."""
    with atomic_write(path, "wb") as file:
        np.save(file, np.array(keys, np.int64))
        np.save(file, np.cumsum([0, *map(len, sets)]))
        for each in sets:
            file.write(each.tobytes())


class StoredSets:
    """A file of `save_sets`; memory holds keys and sizes alone."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")  # closed with the last reference
        self._keys, self._ends = np.load(self._file), np.load(self._file)
        self._begin = self._file.tell()

    def read(self, key: int) -> Hashes:
        """Return a set."""
        place = int(np.searchsorted(self._keys, key))
        start, end = (int(self._ends[i]) * 8 for i in (place, place + 1))
        self._file.seek(self._begin + start)
        hashes: Hashes = np.frombuffer(self._file.read(end - start), np.uint64)
        return hashes
