"""Files of token ids, and what xz makes of the same text."""

import lzma
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lmlab.errors import DataError

if TYPE_CHECKING:
    from lmlab.tokenizer import Tokenizer

END_OF_DOCUMENT = "<|endoftext|>"
BATCH = 8 << 20
"""Characters that are encoded at a time."""
BATCH_DOCUMENTS = 1 << 16
"""Documents that are encoded at a time: very short ones take memory for their objects."""
XZ_LIMIT = 64 << 20
"""Bytes that xz is measured on at most: each MiB takes it a second."""


class Shard:
    """A file of token ids being written: little-endian, each document followed by <|endoftext|>.

    Documents are encoded as text: only the separators are special tokens, whatever a document
    mentions. They are gathered, and encoded many at a time on all cores. Raises DataError when
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
        self._characters = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._file:
            if kind is None:
                self._flush()

    def add(self, text: str) -> None:
        """Append a document."""
        self._waiting.append(text)
        self._characters += len(text)
        if self._characters >= BATCH or len(self._waiting) >= BATCH_DOCUMENTS:
            self._flush()

    def _flush(self) -> None:
        for ids in self._tokenizer.encode_batch(self._waiting, special="text"):
            self._file.write(ids.astype(self._dtype, copy=False).tobytes())
            self._file.write(self._end)
            self.tokens += len(ids) + 1
        self._waiting.clear()
        self._characters = 0


class Xz:
    """How small `xz -9e` makes a text, which is what a language model has to beat.

    It works in a thread beside the encoding; only the first XZ_LIMIT bytes are measured.
    """

    def __init__(self, size: int) -> None:
        # A dictionary larger than the text would only cost memory, ten times its size.
        dictionary = max(4096, min(size, XZ_LIMIT))
        preset = 9 | lzma.PRESET_EXTREME
        self._compressor = lzma.LZMACompressor(
            filters=[{"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": dictionary}]
        )
        self._thread = ThreadPoolExecutor(1)
        self._packed: list[Future[bytes]] = []
        self._read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def add(self, text: bytes) -> None:
        """Append to the text."""
        if text := text[: XZ_LIMIT - self._read]:
            self._read += len(text)
            self._packed.append(self._thread.submit(self._compressor.compress, text))

    def bits_per_byte(self) -> float:
        """Return the size of the packed text in bits per byte of text; waits for the thread."""
        written = sum(len(part.result()) for part in self._packed)
        return 8 * (written + len(self._compressor.flush())) / self._read


def id_type(tokenizer: "Tokenizer") -> "np.dtype[Any]":
    """Return what ids are stored as: little-endian on any machine."""
    dtype: np.dtype[Any] = np.dtype(tokenizer.dtype)
    return dtype.newbyteorder("<")
