"""Ids from text, whatever the pattern: native scanners, or `regex` before native merging."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast, get_args

import numpy as np
import numpy.typing as npt

from lmlab.errors import DataError, UserError
from lmlab.io.compression import read_blocks
from lmlab.tokenizer import native
from lmlab.tokenizer.inputs import (
    add_file,
    byte_bar,
    counted,
    decode_chunks,
    gather,
    invalid_utf8,
)
from lmlab.tokenizer.native import Errors, Ids, PatternName
from lmlab.tokenizer.pretokenize import (
    PATTERNS,
    Special,
    lone_surrogate,
    to_utf8,
)
from lmlab.tokenizer.special import SpecialSplitter
from lmlab.tokenizer.vocabulary import Vocabulary

_PIECE = 1 << 15  # characters of a stream that are encoded at a time


class Encoded(NamedTuple):
    """How much was encoded."""

    ids: int
    text_bytes: int
    """Of the text as it was read, decompressed."""


class Engine:
    """One vocabulary's encoder and decoder."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        native_pattern: PatternName | None = None
        cutting = vocabulary.cutting
        if vocabulary.pattern in PATTERNS and not cutting.nfc and not cutting.before:
            native_pattern = cast(PatternName, vocabulary.pattern)
        self._native_pattern = native_pattern is not None
        self._holes = np.setdiff1d(np.arange(vocabulary.size), list(vocabulary.tokens))
        self._encoder = native.Encoder(
            [vocabulary.tokens.get(i, b"") for i in range(vocabulary.size)],
            vocabulary.merges,
            {name.encode(): i for name, i in vocabulary.special_tokens.items()},
            native_pattern,
            ignore_merges=vocabulary.ignore_merges,
            ordinary=vocabulary.ordinary_ids.values(),
        )
        self.dtype = self._encoder.dtype

    @functools.cached_property
    def _splitter(self) -> SpecialSplitter:
        return SpecialSplitter(list(self._vocabulary.special_tokens))

    def encode(self, text: str | bytes, special: Special) -> Ids:
        """The ids of one text; a DataError where it has no UTF-8 or is none."""
        if not self._native_pattern or special == "error":
            whole = [text] if isinstance(text, str) else decode_chunks([text], "text")
            return np.concatenate([np.empty(0, self.dtype), *self.stream(whole, special)])
        try:
            return self._encoder.encode(text, parse=_parse(special))
        except native.InvalidUtf8 as error:
            raise invalid_utf8("text", error) from None
        except UnicodeEncodeError as error:
            raise lone_surrogate(error) from None

    def encode_batch(
        self, texts: Sequence[str], special: Special, num_threads: int | None
    ) -> list[Ids]:
        """The ids of each text, in parallel where the pattern is native."""
        if special == "error":
            for number, text in enumerate(texts):
                list(self._splitter.refuse([text], f"text {number}"))
        if not self._native_pattern:
            return [self.encode(text, special) for text in texts]
        try:
            return self._encoder.encode_batch(texts, parse=_parse(special), num_threads=num_threads)
        except UnicodeEncodeError as error:
            raise lone_surrogate(error) from None

    def stream(
        self, pieces: Iterable[str], special: Special, source: str = "text"
    ) -> Iterator[Ids]:
        """The ids of the joined pieces, as they become certain."""
        parse = _parse(special)
        if special == "error":
            pieces = self._splitter.refuse(pieces, source)
        if not self._native_pattern:
            special_tokens = self._vocabulary.special_tokens
            parts: Iterable[tuple[str, str | None]] = (
                self._splitter.split(pieces) if parse else [("".join(pieces), None)]
            )
            for part, name in parts:
                vocabulary = self._vocabulary
                pretokens = vocabulary.cutting.pretokens(part, vocabulary.pattern)
                yield self._encoder.encode_pretokens([to_utf8(p) for p in pretokens])
                if name is not None:
                    yield np.array([special_tokens[name]], self.dtype)
            return
        stream = self._encoder.stream(parse=parse)
        for text in gather(pieces, _PIECE):
            yield stream.feed(to_utf8(text))
        yield stream.finish()

    def encode_files(
        self,
        paths: Sequence[Path],
        out: IO[bytes],
        errors: Errors,
        special: Special,
        num_threads: int | None,
        progress: bool,
    ) -> Encoded:
        """Write the ids of files, each a text of its own, to `out`."""
        with byte_bar(paths, "encode", show=progress) as bar:
            if self._native_pattern and special != "error":
                sink = native.FileEncoder(
                    self._encoder,
                    out.fileno(),
                    parse=_parse(special),
                    num_threads=num_threads,
                    errors=errors,
                    progress=lambda done: bar.update(done - bar.n),
                )
                for path in paths:
                    add_file(sink, path)
                return Encoded(sink.finish(), sink.text_bytes)
            count = text_bytes = 0

            def advance(size: int) -> None:
                nonlocal text_bytes
                text_bytes += size
                bar.update(size)

            for path in paths:
                chunks = counted(read_blocks(path), advance)
                text = decode_chunks(chunks, str(path), errors)
                for ids in self.stream(text, special, str(path)):
                    out.write(ids.tobytes())
                    count += len(ids)
            return Encoded(count, text_bytes)

    def decode(self, ids: npt.NDArray[Any], position: int = 0) -> bytes:
        """The bytes of `ids`, the first of which is at `position` of a longer row."""
        if ids.size == 0:
            return b""
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise DataError(f"ids should be one row of whole numbers, not {ids.dtype} {ids.shape}")
        size = self._vocabulary.size
        unknown = (ids < 0) | (ids >= size)
        if self._holes.size:
            unknown |= np.isin(ids, self._holes)
        if unknown.any():
            first = int(unknown.argmax())
            raise DataError(
                f"id {ids[first]} at position {position + first} is not in this vocabulary of "
                f"{size} tokens; were the ids made by another tokenizer?"
            )
        return self._encoder.decode_bytes(ids.astype(self.dtype, copy=False))


def _parse(special: Special) -> bool:
    """Whether special tokens are cut out."""
    if special not in get_args(Special):
        raise UserError(f"special={special!r}: give one of {', '.join(get_args(Special))}")
    return special == "parse"
