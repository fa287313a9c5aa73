"""The native core as the rest of the package sees it: the only module that imports `_core`.

Texts are bytes here. A *sink* takes texts piece by piece: `add_file(path)` and `add(piece)` extend
the current text wherever the pieces are cut, `end_text()` ends it, so that no pretoken and no
special token crosses from one text to the next. What a sink does with the pretokens is the
difference between `Counter` (training) and `FileEncoder` (token files).

Everything runs without the GIL, looks for Ctrl-C about every 50 ms, and gives the same result for
any number of threads and any cut of the pieces.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from lmlab.errors import UserError

if TYPE_CHECKING:
    _core: Any
else:
    try:
        from lmlab.tokenizer import _core
    except ImportError as error:
        raise UserError(
            f"the native tokenizer is not built ({error}); build it with `pip install -e .` "
            "in the project's folder, which needs a C++20 compiler"
        ) from None

PatternName = Literal["gpt2", "cl100k", "o200k"]
Errors = Literal["strict", "replace"]
Ids = NDArray[np.uint16] | NDArray[np.uint32]
Progress = Callable[[int], object]
"""Called now and then with what has been done so far; what it raises stops the work."""

NATIVE_PATTERNS: tuple[PatternName, ...] = ("gpt2", "cl100k", "o200k")
CHUNK_BYTES = 1 << 19
"""Bytes of text that a thread works on at a time; small enough to stay in a core's own cache."""


class Sink(Protocol):
    """What takes texts piece by piece."""

    def add_file(self, path: Path) -> None: ...
    def add(self, piece: bytes) -> None: ...
    def end_text(self) -> None: ...


class InvalidUtf8(ValueError):
    """A text is not UTF-8; `offset` counts bytes from the beginning of that text."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"invalid UTF-8 at byte {offset}")
        self.offset = offset


def default_threads() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Counter:
    """Counts pretokens and learns merges from them; memory grows with the distinct pretokens.

    `pattern=None` takes ready pretokens through `add_pretokens` instead of texts.
    """

    def __init__(
        self,
        pattern: PatternName | None,
        special_tokens: Sequence[bytes] = (),
        *,
        num_threads: int | None = None,
        errors: Errors = "strict",
        progress: Progress | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        """`progress` gets the bytes read so far. Raises InvalidUtf8 from the adding methods."""

    def add_file(self, path: Path) -> None:
        """Add all of a plain file to the current text."""

    def add(self, piece: bytes) -> None:
        """Add the next piece of the current text."""

    def end_text(self) -> None:
        """End the current text."""

    def add_pretokens(self, pretokens: Sequence[bytes]) -> None:
        """Count pretokens that some other pattern has cut."""

    def counts(self) -> dict[bytes, int]:
        """The count of each distinct pretoken so far (ends the current text)."""

    def train(
        self, num_merges: int, progress: Progress | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Learn up to `num_merges` merges, in the order of creation, and give the counts up.

        `progress` gets the merges done so far.
        """


def split_pretokens(
    text: bytes, pattern: PatternName, special_tokens: Sequence[bytes] = ()
) -> list[bytes]:
    """The pretokens of a valid UTF-8 text, without its special tokens: for tests and inspection."""


class Encoder:
    """Encodes and decodes with one vocabulary. Safe to use from several threads at once."""

    def __init__(
        self,
        vocab: Sequence[bytes],
        merges: Sequence[tuple[bytes, bytes]] | None,
        special_tokens: dict[bytes, int],
        pattern: PatternName | None,
    ) -> None:
        """`vocab[i]` is the bytes of id i (b"" where there is no token, as in holes).

        With `merges`, pairs merge in that order. With None the ids are ranks as tiktoken means
        them: a pretoken that is a token is that token, and otherwise the neighbours whose
        concatenation has the lowest id merge first. `special_tokens` maps to ids, whose entries in
        `vocab` must be the same bytes. `pattern=None` leaves only `encode_pretokens`.
        Raises ValueError for a vocabulary without all 256 bytes, a merge whose parts or result are
        missing, and a special token that is empty.
        """

    @property
    def dtype(self) -> "np.dtype[Any]":
        """uint16 up to 65,536 ids, uint32 above."""

    def encode(self, text: str | bytes, *, num_threads: int = 1) -> Ids:
        """The ids of one text. Raises InvalidUtf8; UnicodeEncodeError for a lone surrogate."""

    def encode_batch(
        self, texts: Sequence[str | bytes], *, num_threads: int | None = None
    ) -> list[Ids]:
        """The ids of each text, texts in parallel."""

    def encode_pretokens(self, pretokens: Sequence[bytes]) -> Ids:
        """The ids of pretokens that some other pattern has cut; no special tokens are looked for."""

    def stream(self, *, errors: Errors = "strict") -> "EncoderStream":
        """An encoder of one text that comes in pieces."""

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        """The bytes of the ids. Raises IndexError that names the first id out of range."""


class EncoderStream:
    """Encodes one text that comes in pieces; the pieces' ids together are those of the whole."""

    def feed(self, piece: bytes) -> Ids:
        """Add a piece; gives the ids that no further text can change."""

    def finish(self) -> Ids:
        """The rest of the ids; the stream is empty again after it."""


class FileEncoder:
    """A sink that writes ids to an open file, in order, while threads encode: bounded memory."""

    def __init__(
        self,
        encoder: Encoder,
        descriptor: int,
        *,
        num_threads: int | None = None,
        errors: Errors = "strict",
        progress: Progress | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        """`descriptor` is written with os.write semantics; `progress` gets the bytes read so far."""

    def add_file(self, path: Path) -> None:
        """Add all of a plain file to the current text."""

    def add(self, piece: bytes) -> None:
        """Add the next piece of the current text."""

    def end_text(self) -> None:
        """End the current text."""

    def finish(self) -> int:
        """Write what is left; the number of ids written. Raises OSError when the disk is full."""
