"""Near-duplicates by MinHash and LSH (Broder 1997; Leskovec et al. 2020, section 3.4).

The stages store what they find, so that memory does not grow with the corpus:
band keys of each file; buckets of equal keys; shingles of the texts in buckets; pairs whose true
Jaccard similarity reaches the threshold; clusters of connected texts.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64, UInt64

from lmlab.cleaning.components import Parents, connect, flatten, separate
from lmlab.cleaning.document import Document, Removal
from lmlab.cleaning.hashing import MinHash, band_keys, jaccard, ngram_set
from lmlab.cleaning.native import Hashes
from lmlab.cleaning.partitions import PartitionWriter, Rows, read_partition, save_array
from lmlab.cleaning.pipeline_config import MinHashConfig
from lmlab.cleaning.stored_sets import StoredSets, save_sets

NAME = "minhash"
_KEY = [("key", "<u8"), ("row", "<u4")]
_EDGE = [("a", "<u8"), ("b", "<u8"), ("jaccard", "<f8")]
_MEMBER = [("row", "<u4"), ("cluster", "<u8"), ("survives", "?"), ("jaccard", "<f8")]
_FILE_BITS, _ROW_BITS = np.uint64(32), np.uint64(0xFFFFFFFF)
_BATCH = 256
_OPEN_FILES = 64
_MERGED = 2**16


class MinHashStore:
    """The stages for a set of files of texts; a text is known by its file and its row there."""

    def __init__(self, directory: Path, config: MinHashConfig, files: int, partitions: int) -> None:
        self.directory, self.config = directory, config
        self.files, self.partitions = files, partitions
        # A few files' shingles at a time: there may be more files than a process may open.
        # They must not refer to this object: they are closed when it is dropped, not later.
        path = partial(_path, directory, "shingles", suffix="bin")
        self._open_shingles = lru_cache(_OPEN_FILES)(lambda file: StoredSets(path(file)))

    def writer(self, file: int) -> "KeyWriter":
        """Return a context that takes the texts of one file, in order."""
        return KeyWriter(self._path("keys", file, "bin"), self._path("lengths", file), self)

    def bucket(self, partition: int) -> None:
        """Stage 2: write the texts of one partition that share a band with another one."""
        rows = [read_partition(self._path("keys", f, "bin"), _KEY, partition) for f in self._all()]
        keys = np.concatenate([part["key"] for part in rows])
        texts = np.concatenate(
            [
                (np.uint64(f) << _FILE_BITS) | part["row"]
                for f, part in zip(self._all(), rows, strict=True)
            ]
        ).astype(np.uint64)
        order = np.lexsort((texts, keys))
        keys, texts = keys[order], texts[order]
        same = np.concatenate([[False], keys[1:] == keys[:-1]])[: len(keys)]
        shared = same | np.concatenate([same[1:], [False]])[: len(keys)]
        save_array(self._path("bucket", partition), texts[shared])
        save_array(self._path("starts", partition), np.flatnonzero(~same[shared]))

    def write_shingles(self, file: int, texts: Iterable[str]) -> None:
        """Stage 3: write the shingles of the texts of one file that are in a bucket."""
        wanted = set(self._candidates(file).tolist())
        rows: list[int] = []
        sets: list[Hashes] = []
        for row, text in enumerate(texts):
            if row in wanted:
                rows.append(row)
                sets.append(ngram_set(text, self.config.ngrams))
        save_sets(self._path("shingles", file, "bin"), rows, sets)

    def verify(self, partition: int) -> None:
        """Stage 4: write the pairs of one partition that are similar enough.

        A pair that others connect already is not compared: the clusters are the same.
        """
        texts = np.load(self._path("bucket", partition))
        parts = np.split(texts, np.load(self._path("starts", partition))[1:])
        # Texts of one file after another, so that few files are opened more than once.
        buckets = sorted((part.tolist() for part in parts), key=lambda bucket: bucket[:1])
        edges: list[tuple[int, int, float]] = []
        for bucket in buckets:
            edges += self._edges(bucket)
        save_array(self._path("edges", partition), np.unique(np.array(edges, _EDGE)))

    def cluster(self) -> None:
        """Stage 5: write for each file which texts are in a cluster, and which one survives."""
        texts = self._similar()
        similarity = np.zeros(len(texts))
        parents = separate(len(texts))
        for edges in self._edges_by_partition():
            a, b = (np.searchsorted(texts, edges[end]).astype(np.int32) for end in ("a", "b"))
            connect(parents, a, b)
            for ends in (a, b):
                np.maximum.at(similarity, ends, edges["jaccard"])
        flatten(parents)
        survivors = self._survivors(texts, parents)
        for file, start, end in self._ranges(texts):
            mine = parents[start:end]
            members = np.empty(end - start, _MEMBER)
            members["row"] = texts[start:end] & _ROW_BITS
            members["cluster"] = texts[mine]
            members["survives"] = survivors[mine] == np.arange(start, end)
            members["jaccard"] = similarity[start:end]
            save_array(self._path("members", file), members)

    def _edges_by_partition(self) -> Iterator[Rows]:
        for partition in range(self.partitions):
            yield np.load(self._path("edges", partition))

    def _similar(self) -> UInt64[np.ndarray, " texts"]:
        """Return the texts that have a similar one, in order."""
        texts, waiting = np.empty(0, np.uint64), [np.empty(0, np.uint64)]
        for edges in self._edges_by_partition():
            waiting += [edges["a"], edges["b"]]
            if 4 * sum(map(len, waiting)) > max(len(texts), _MERGED):
                texts, waiting = _distinct([texts, *waiting]), []
        return _distinct([texts, *waiting])

    def _survivors(
        self, texts: UInt64[np.ndarray, " texts"], firsts: Parents
    ) -> Int32[np.ndarray, " texts"]:
        """Return at the first text of each cluster which one survives; texts are in order."""
        if self.config.keep == "first":
            return firsts
        lengths = self._lengths(texts)
        longest = np.zeros(len(texts), lengths.dtype)
        np.maximum.at(longest, firsts, lengths)
        as_long = np.flatnonzero(lengths == longest[firsts])
        survivors = np.full(len(texts), len(texts), np.int32)
        np.minimum.at(survivors, firsts[as_long], as_long.astype(np.int32))
        return survivors

    def members(self, file: int) -> Rows:
        """Return the texts of a file that are in a cluster, by row."""
        rows: Rows = np.load(self._path("members", file))
        return rows

    def _lengths(self, texts: UInt64[np.ndarray, " texts"]) -> Int64[np.ndarray, " texts"]:
        """Return the characters of texts that are in order."""
        lengths = np.empty(len(texts), np.int64)
        for file, start, end in self._ranges(texts):
            stored = np.load(self._path("lengths", file), mmap_mode="r")
            lengths[start:end] = stored[texts[start:end] & _ROW_BITS]
        return lengths

    def _ranges(self, texts: UInt64[np.ndarray, " texts"]) -> Iterator[tuple[int, int, int]]:
        """Yield each file, and from where to where its texts are among texts in order."""
        begins = np.arange(self.files + 1, dtype=np.uint64) << _FILE_BITS
        for file, (start, end) in enumerate(pairwise(np.searchsorted(texts, begins).tolist())):
            yield file, start, end

    def _edges(self, texts: list[int]) -> list[tuple[int, int, float]]:
        """Return the similar pairs of a bucket, but for those in one cluster already."""
        found: list[tuple[int, int, float]] = []
        clusters: list[list[int]] = []
        for text in texts:
            mine = self._shingles(text)
            joined: list[int] = [text]
            apart: list[list[int]] = []
            for cluster in clusters:
                pairs = ((other, self._similarity(mine, other)) for other in cluster)
                pair = next((p for p in pairs if p[1] >= self.config.jaccard_threshold), None)
                if pair is None:
                    apart.append(cluster)
                else:
                    found.append((pair[0], text, pair[1]))
                    joined = cluster + joined
            clusters = [*apart, joined]
        return found

    def _similarity(self, mine: Hashes, text: int) -> float:
        """Return the Jaccard similarity; 0 where the sizes exclude that it is high enough."""
        other = self._shingles(text)
        small, large = sorted((len(mine), len(other)))
        if small / large < self.config.jaccard_threshold:  # as jaccard rounds it
            return 0.0
        return jaccard(mine, other)

    def _shingles(self, text: int) -> Hashes:
        return self._open_shingles(text >> 32).read(text & 0xFFFFFFFF)

    def _candidates(self, file: int) -> np.ndarray[Any, Any]:
        rows = []
        for partition in range(self.partitions):
            texts = np.load(self._path("bucket", partition), mmap_mode="r")
            mine = texts[(texts >> _FILE_BITS) == file] & _ROW_BITS
            rows.append(np.unique(mine))
        return np.unique(np.concatenate(rows))

    def _all(self) -> range:
        return range(self.files)

    def _path(self, name: str, number: int, suffix: str = "npy") -> Path:
        return _path(self.directory, name, number, suffix)


def _path(directory: Path, name: str, number: int, suffix: str) -> Path:
    return directory / f"{name}-{number:05d}.{suffix}"


def _distinct(parts: Sequence[UInt64[np.ndarray, " _"]]) -> UInt64[np.ndarray, " texts"]:
    """Return the distinct numbers of arrays in order, with less memory than `np.unique`."""
    numbers = np.concatenate(parts)
    numbers.sort()
    repeated = np.zeros(len(numbers), bool)
    repeated[1:] = numbers[1:] == numbers[:-1]
    distinct: UInt64[np.ndarray, " texts"] = numbers[~repeated]
    return distinct


class KeyWriter(PartitionWriter):
    """Takes texts, and stores the keys of their bands."""

    def __init__(self, path: Path, lengths: Path, store: MinHashStore) -> None:
        super().__init__(path, _KEY, store.partitions)
        self._config = store.config
        self._minhash = MinHash(store.config.num_hashes, store.config.ngrams)
        self._lengths_path = lengths
        self._lengths: list[int] = []
        self._waiting: list[str] = []

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._sign()
            save_array(self._lengths_path, np.array(self._lengths, np.int64))
        super().__exit__(*error)

    def add(self, documents: Sequence[Document]) -> None:
        """Add the texts of documents."""
        for document in documents:
            self.add_text(document.text)

    def add_text(self, text: str) -> None:
        """Add a text; one without words has no duplicates."""
        self._waiting.append(text)
        if len(self._waiting) >= _BATCH:
            self._sign()

    def _sign(self) -> None:
        if not self._waiting:
            return
        signatures = self._minhash(self._waiting)
        keys = band_keys(signatures, self._config.num_bands)
        has_words = np.flatnonzero((signatures != np.uint32(0xFFFFFFFF)).any(axis=1))
        rows = np.empty((len(has_words), self._config.num_bands), _KEY)
        rows["key"] = keys[has_words]
        rows["row"] = (len(self._lengths) + has_words)[:, None]
        self.add_rows(rows.reshape(-1))
        self._lengths += map(len, self._waiting)
        self._waiting.clear()


class Survivors:
    """The step that keeps one document of each cluster, unchanged."""

    name = NAME

    def __init__(self, members: Rows) -> None:
        self._members = {int(member["row"]): member for member in members}
        self._row = 0

    def __call__(self, documents: Sequence[Document]) -> list[Document]:
        """Set the removal of duplicates; takes all documents of the file in order, once."""
        for document in documents:
            member = self._members.get(self._row)
            self._row += 1
            if member is None:
                continue
            similarity = float(member["jaccard"])
            document.scores[f"{NAME}.jaccard"] = similarity
            document.metadata["cluster"] = int(member["cluster"])
            if not member["survives"]:
                document.removal = Removal(NAME, "duplicate", similarity)
        return list(documents)
