"""Files of token ids, and the size of the same text compressed by xz."""

import itertools
import lzma
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from lmlab.data.reading import Document, pieces_of
from lmlab.errors import DataError

if TYPE_CHECKING:
    from lmlab.tokenizer import Tokenizer

END_OF_DOCUMENT = "<|endoftext|>"
BATCH = 8 << 20
"""Bytes that are encoded at a time, with those that a document costs beside its text."""
DOCUMENT_COST = 256
"""Bytes that a document's string and array take beside their content."""
LONG = 32 << 20
"""Bytes above which a document is encoded piece by piece."""
XZ_LIMIT = 64 << 20
"""Bytes that xz is measured on at most: each MiB takes a second."""
_XZ_BLOCK = 1 << 20


class Shard:
    """A file of token ids being written: little-endian, each document followed by <|endoftext|>.

    Documents are encoded as text: only the separators are special tokens, whatever a document
    mentions. Short ones are gathered and encoded together on all cores. Raises DataError when
    <|endoftext|> is an ordinary token of the vocabulary too.
    """

    def __init__(self, path: Path, tokenizer: "Tokenizer") -> None:
        self.tokens = 0
        self._file = path.open("wb", buffering=1 << 20)
        self._tokenizer = tokenizer
        self._dtype = id_type(tokenizer)
        end = tokenizer.special_tokens[END_OF_DOCUMENT]
        if tokenizer.byte_lengths()[end]:
            raise DataError(
                f"{END_OF_DOCUMENT}, id {end}, is an ordinary token of this vocabulary too, so "
                "separators and text cannot be told apart; use another vocabulary or pattern"
            )
        self._end = np.array([end], self._dtype).tobytes()
        self._waiting: list[str] = []
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._file:
            if kind is None:
                self._flush()

    def add(self, document: Document) -> None:
        """Append a document."""
        if len(document) > LONG:
            self._flush()
            ids = self._tokenizer.encode_iterable(pieces_of(document), special="text")
            while len(part := np.fromiter(itertools.islice(ids, BATCH), self._dtype)):
                self._write(part)
            self._end_document()
            return
        self._waiting.append(document.decode())
        self._size += len(document) + DOCUMENT_COST
        if self._size >= BATCH:
            self._flush()

    def _flush(self) -> None:
        for ids in self._tokenizer.encode_batch(self._waiting, special="text"):
            self._write(ids)
            self._end_document()
        self._waiting.clear()
        self._size = 0

    def _write(self, ids: "npt.NDArray[Any]") -> None:
        self._file.write(ids.astype(self._dtype, copy=False).tobytes())
        self.tokens += len(ids)

    def _end_document(self) -> None:
        self._file.write(self._end)
        self.tokens += 1


class Xz:
    """The size of a text compressed by `xz -9e`, a baseline for a language model.

    A thread compresses beside the encoding; only the first XZ_LIMIT bytes are measured.
    """

    def __init__(self, size: int) -> None:
        # A dictionary larger than the text would not help, and costs ten times its size in memory.
        dictionary = max(4096, min(size, XZ_LIMIT))
        preset = 9 | lzma.PRESET_EXTREME
        self._compressor = lzma.LZMACompressor(
            filters=[{"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": dictionary}]
        )
        self._thread = ThreadPoolExecutor(1)
        self._packed: list[Future[bytes]] = []
        self._waiting = bytearray()
        self._read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def add(self, text: Document) -> None:
        """Append to the text."""
        with memoryview(text) as view:
            part = view[: XZ_LIMIT - self._read]
            self._read += len(part)
            self._waiting += part
        if len(self._waiting) >= _XZ_BLOCK:
            self._submit()

    def _submit(self) -> None:
        self._packed.append(self._thread.submit(self._compressor.compress, bytes(self._waiting)))
        self._waiting.clear()

    def bits_per_byte(self) -> float:
        """Return the compressed size in bits per byte of text; waits for the thread."""
        self._submit()
        written = sum(len(part.result()) for part in self._packed)
        return 8 * (written + len(self._compressor.flush())) / self._read


def id_type(tokenizer: "Tokenizer") -> "np.dtype[Any]":
    """Return the type of stored ids: little-endian on any machine."""
    dtype: np.dtype[Any] = np.dtype(tokenizer.dtype)
    return dtype.newbyteorder("<")
