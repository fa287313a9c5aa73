"""The native core as the rest of the package sees it: the only module that imports `_core`.

Texts are bytes here. A *sink* takes texts piece by piece: `add_file(path)` and `add(piece)` extend
the current text wherever the pieces are cut, and `end_text()` ends it. `Counter` (training) and
`FileEncoder` (token files) are sinks.

Everything runs without the GIL, looks for Ctrl-C about every 50 ms, and gives the same result for
any number of threads and any cut of the pieces.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
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

CHUNK_BYTES = 1 << 19
"""Bytes of text that a thread works on at a time; small enough to stay in a core's own cache."""

MOST_THREADS = 1024

InvalidUtf8: type[ValueError] = _core.InvalidUtf8
"""A text is not UTF-8; the message says at which byte, counted from the beginning of that text."""


class Sink(Protocol):
    """What takes texts piece by piece."""

    def add_file(self, path: Path) -> None:
        """Add all of a plain file to the current text."""

    def add(self, piece: bytes) -> None:
        """Add the next piece of the current text."""

    def end_text(self) -> None:
        """End the current text."""


def default_threads() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MOST_THREADS)
    return min(os.cpu_count() or 1, MOST_THREADS)


def _threads(num_threads: int | None) -> int:
    if num_threads is None:
        return default_threads()
    if num_threads > MOST_THREADS:
        raise UserError(f"{num_threads} threads are too many: give at most {MOST_THREADS}")
    return max(1, num_threads)


class Counter:
    """Counts pretokens and learns merges from them; memory grows with the distinct pretokens."""

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
        """`pattern=None` takes ready pretokens (`add_pretokens`) and no texts.

        `progress` gets the bytes read so far. The adding methods raise InvalidUtf8.
        """
        self._core = _core.Counter(
            pattern or "gpt2",
            list(special_tokens),
            _threads(num_threads),
            chunk_bytes,
            errors == "replace",
            progress,
        )

    def add_file(self, path: Path) -> None:
        """Add all of a plain file to the current text."""
        self._core.add_file(os.fsencode(path))

    def add(self, piece: bytes) -> None:
        """Add the next piece of the current text."""
        self._core.add(piece)

    def end_text(self) -> None:
        """End the current text."""
        self._core.end_text()

    def add_texts(self, texts: Sequence[str | bytes]) -> None:
        """Add whole texts, in which special tokens are text; none of them is a long one."""
        self._core.add_texts(texts)

    def add_pretokens(self, pretokens: Sequence[bytes]) -> None:
        """Count pretokens that some other pattern has cut."""
        self._core.add_pretokens(pretokens)

    def counts(self) -> dict[bytes, int]:
        """The count of each distinct pretoken; the counter is used up."""
        found: dict[bytes, int] = self._core.counts()
        return found

    def train(self, num_merges: int, progress: Progress | None = None) -> list[tuple[bytes, bytes]]:
        """Learn up to `num_merges` merges, in the order of creation; the counter is used up.

        `progress` gets the merges done so far.
        """
        merges: list[tuple[bytes, bytes]] = self._core.train(num_merges, progress)
        return merges


def split_pretokens(
    text: str | bytes, pattern: PatternName, special_tokens: Sequence[bytes] = ()
) -> list[bytes]:
    """The pretokens of a text, without its special tokens: for tests and inspection."""
    data = text.encode() if isinstance(text, str) else text
    found: list[bytes] = _core.split(data, pattern, list(special_tokens))
    return found


class Encoder:
    """Encodes and decodes with one vocabulary; may be used from several threads at once."""

    def __init__(
        self,
        vocab: Sequence[bytes],
        merges: Sequence[tuple[bytes, bytes]] | None,
        special_tokens: Mapping[bytes, int],
        pattern: PatternName | None,
        *,
        ignore_merges: bool = False,
        ordinary: Collection[int] = (),
    ) -> None:
        """`vocab[i]` is the bytes of id i (b"" where there is no token, as in holes).

        With `merges`, pairs merge in that order; with `ignore_merges` only in a pretoken that is no
        token. With None the ids are ranks as tiktoken means them: a pretoken that is a token is
        that token, and otherwise the neighbours whose concatenation has the lowest id merge first.
        `special_tokens` maps to ids below len(vocab), which no text becomes except those that are
        `ordinary` tokens too. `pattern=None` leaves only `encode_pretokens`. Raises ValueError for
        a vocabulary without all 256 bytes, a merge whose parts or result are missing, and an empty
        special token.
        """
        self._pattern = pattern
        self._core = _core.Encoder(
            list(vocab),
            None if merges is None else list(merges),
            list(special_tokens.items()),
            sorted(set(special_tokens.values()).difference(ordinary)),
            pattern or "gpt2",
            ignore_merges,
        )
        self.dtype: np.dtype[Any] = np.dtype(np.uint16 if len(vocab) <= 65536 else np.uint32)
        """uint16 up to 65,536 ids, uint32 above."""

    def encode(
        self, text: str | bytes, *, parse: bool = True, num_threads: int | None = None
    ) -> Ids:
        """The ids of one text, a text above 1 MiB by several threads.

        Without `parse`, special tokens are ordinary text, here and below.
        Raises InvalidUtf8; UnicodeEncodeError for a lone surrogate.
        """
        ids: Ids = self._core.encode(text, parse, _threads(num_threads))
        return ids

    def encode_batch(
        self,
        texts: Sequence[str | bytes],
        *,
        parse: bool = True,
        num_threads: int | None = None,
    ) -> list[Ids]:
        """The ids of each text, texts in parallel, and the parts of those above 1 MiB."""
        arrays: list[Ids] = self._core.encode_batch(list(texts), parse, _threads(num_threads))
        return arrays

    def split_tokens(self) -> list[list[int]]:
        """Without `merges`: for each token the ids that lower ids leave of it; two of a merge."""
        parts: list[list[int]] = self._core.split_tokens()
        return parts

    def encode_pretokens(self, pretokens: Sequence[bytes]) -> Ids:
        """The ids of pretokens that some other pattern has cut; special tokens are not found."""
        ids: Ids = self._core.encode_pretokens(pretokens)
        return ids

    def stream(self, *, parse: bool = True, errors: Errors = "strict") -> "EncoderStream":
        """An encoder of one text that comes in pieces."""
        return EncoderStream(_core.EncoderStream(self._core, parse, errors == "replace"))

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        """The bytes of the ids. Raises IndexError that names the first id without a token."""
        text: bytes = self._core.decode(np.ascontiguousarray(ids, dtype=np.int64))
        return text


class SpecialFinder:
    """Finds special tokens in UTF-8; of those that begin at one place the longest."""

    def __init__(self, special_tokens: Sequence[bytes]) -> None:
        self._core = _core.Specials(list(special_tokens))

    def find(self, text: bytes, start: int = 0, *, final: bool = True) -> tuple[int, int]:
        """Where the first one from `start` on begins, and its index.

        Without one the index is -1, and no later text changes that before the place returned.
        """
        found: tuple[int, int] = self._core.find(text, start, final)
        return found


class EncoderStream:
    """Encodes one text that comes in pieces; the pieces' ids together are those of the whole."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def feed(self, piece: bytes) -> Ids:
        """Add a piece; gives ids that no further text can change."""
        ids: Ids = self._core.feed(piece)
        return ids

    def finish(self) -> Ids:
        """The rest of the ids; the stream is empty again after it."""
        ids: Ids = self._core.finish()
        return ids


class FileEncoder:
    """A sink that writes ids to an open file, in order, while threads encode: bounded memory."""

    def __init__(
        self,
        encoder: Encoder,
        descriptor: int,
        *,
        parse: bool = True,
        num_threads: int | None = None,
        errors: Errors = "strict",
        progress: Progress | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        """`descriptor` is open for writing; `progress` gets the bytes read so far."""
        self._core = _core.FileEncoder(
            encoder._core,
            descriptor,
            parse,
            _threads(num_threads),
            chunk_bytes,
            errors == "replace",
            progress,
        )

    def add_file(self, path: Path) -> None:
        """Add all of a plain file to the current text."""
        self._core.add_file(os.fsencode(path))

    def add(self, piece: bytes) -> None:
        """Add the next piece of the current text."""
        self._core.add(piece)

    def end_text(self) -> None:
        """End the current text."""
        self._core.end_text()

    def finish(self) -> int:
        """Write what is left; the number of ids written. Raises OSError when the disk is full."""
        written: int = self._core.finish()
        return written

    @property
    def text_bytes(self) -> int:
        """The bytes of text read so far."""
        size: int = self._core.text_bytes
        return size
