"""The tokenizer: text to ids and back, over the native encoder."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lmlab.errors import DataError
from lmlab.io.compression import read_plain
from lmlab.tokenizer import formats, interchange, ranks
from lmlab.tokenizer.engine import Encoded, Engine
from lmlab.tokenizer.native import Errors, Ids
from lmlab.tokenizer.outputs import check_apart, listed, writing
from lmlab.tokenizer.pretokenize import Cutting, Special
from lmlab.tokenizer.vocabulary import Pair, Vocabulary

PathLike = str | Path


class Tokenizer:
    """Byte-level BPE over a finished vocabulary; ids equal tiktoken's for the same ranks.

    Special tokens that the vocabulary lacks are appended to it. What is not registered as special
    is ordinary text. `pattern` is gpt2, cl100k, o200k, or any pattern of the `regex` package that
    matches every character.

    Every method that encodes takes `special`, which says how special tokens in the text are read:
    `"parse"` (the default) keeps them whole, the longest one where several match; `"text"` encodes
    them like any other text, as a corpus needs it, whose documents may mention them; `"error"`
    raises a DataError that names the first.
    """

    def __init__(
        self,
        vocab: Mapping[int, bytes],
        merges: Sequence[Pair],
        special_tokens: Sequence[str] | Mapping[str, int] | None = None,
        pattern: str = "gpt2",
    ) -> None:
        self._set(Vocabulary.of(vocab, merges, special_tokens, pattern))

    def _set(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._engine = Engine(vocabulary)

    @classmethod
    def _of(cls, vocabulary: Vocabulary) -> Self:
        tokenizer = cls.__new__(cls)
        tokenizer._set(vocabulary)
        return tokenizer

    def __reduce__(self) -> tuple[object, ...]:
        return type(self)._of, (self._vocabulary,)

    def __repr__(self) -> str:
        return (
            f"Tokenizer({self.vocab_size} tokens, {len(self.merges)} merges, "
            f"pattern={self.pattern!r}, special_tokens={list(self.special_tokens)})"
        )

    @property
    def vocab(self) -> dict[int, bytes]:
        """Id to bytes."""
        return self._vocabulary.tokens

    @property
    def merges(self) -> list[Pair]:
        """The merges in the order of creation."""
        return self._vocabulary.merges

    @property
    def special_tokens(self) -> dict[str, int]:
        """Special token to id."""
        return self._vocabulary.special_tokens

    @property
    def pattern(self) -> str:
        """The pattern's name, or the pattern itself when it has none."""
        return self._vocabulary.pattern

    @property
    def cutting(self) -> Cutting:
        """What is done to text beside cutting it by the pattern."""
        return self._vocabulary.cutting

    @property
    def ignore_merges(self) -> bool:
        """Whether a pretoken that is a token is that token, whether merges make it or not."""
        return self._vocabulary.ignore_merges

    @property
    def vocab_size(self) -> int:
        """The largest id plus one: the rows an embedding needs."""
        return self._vocabulary.size

    @property
    def dtype(self) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
        """What ids are stored as: uint16 up to 65,536 entries, uint32 above."""
        return np.dtype(np.uint16) if self.vocab_size <= 1 << 16 else np.dtype(np.uint32)

    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """The bytes of text behind each id, shape (vocab_size,).

        0 for special tokens, except those that text becomes too, such as a registered `"a"`.
        """
        lengths = np.zeros(self.vocab_size, np.int64)
        for i, token in self.vocab.items():
            lengths[i] = len(token)
        also_text = self._vocabulary.ordinary_ids.values()
        lengths[list(set(self.special_tokens.values()).difference(also_text))] = 0
        return lengths

    def with_special_token_renamed(self, old: str, new: str) -> Self:
        """Return the same tokenizer with another name for a special token, under the same id."""
        return self._of(self._vocabulary.renamed(old, new))

    def extended(self, special_tokens: Sequence[str], chat_template: str | None) -> Self:
        """Return it with more special tokens, at the next ids, and a template of conversations."""
        return self._of(self._vocabulary.extended(special_tokens, chat_template))

    @property
    def chat_template(self) -> str | None:
        """The Jinja template of conversations that is saved with the tokenizer, if any."""
        return self._vocabulary.chat_template

    # Encoding

    def encode(self, text: str, *, special: Special = "parse") -> list[int]:
        """The ids of `text`."""
        ids: list[int] = self.encode_array(text, special=special).tolist()
        return ids

    def encode_array(
        self, text: str | bytes, *, special: Special = "parse", errors: Errors = "strict"
    ) -> Ids:
        """The ids of `text`, or of UTF-8 bytes, as an array of `dtype`, shape (tokens,).

        Every core takes part in a text above 1 MiB.
        Bytes that are not UTF-8 are a DataError, or U+FFFD with `errors="replace"`.
        """
        if isinstance(text, bytes) and errors == "replace":
            text = text.decode(errors="replace")
        return self._engine.encode(text, special)

    def encode_batch(
        self,
        texts: Sequence[str],
        *,
        special: Special = "parse",
        num_threads: int | None = None,
    ) -> list[Ids]:
        """The ids of each text, in parallel; `num_threads` None means every core."""
        return self._engine.encode_batch(texts, special, num_threads)

    def encode_iterable(
        self, pieces: Iterable[str], *, special: Special = "parse"
    ) -> Iterator[int]:
        """The ids of the joined pieces, lazily; the same ids however the text is cut.

        Holds little more than one pretoken. With a pattern of your own, whose look-around could
        reach anywhere, it holds the text between two special tokens.
        """
        for ids in self._engine.stream(pieces, special):
            yield from ids.tolist()

    def encode_file(
        self,
        path: PathLike | Sequence[PathLike],
        out: PathLike,
        *,
        special: Special = "parse",
        errors: Errors = "strict",
        num_threads: int | None = None,
        progress: bool = False,
    ) -> int:
        """Encode text files (plain, .gz or .zst) to raw ids of `dtype`; returns how many.

        Each file is a text of its own; the ids follow one another. `out` appears when it is
        complete: an error or a full disk leaves what was there before. An `out` that is one of the
        inputs is a UserError.
        """
        return self.measure_file(
            path, out, special=special, errors=errors, num_threads=num_threads, progress=progress
        ).ids

    def measure_file(
        self,
        path: PathLike | Sequence[PathLike],
        out: PathLike | None = None,
        *,
        special: Special = "parse",
        errors: Errors = "strict",
        num_threads: int | None = None,
        progress: bool = False,
    ) -> Encoded:
        """`encode_file`, or only what it would write: how many ids of how many bytes of text."""
        paths = listed(path)
        if out is None:
            with Path(os.devnull).open("wb") as nowhere:
                return self._engine.encode_files(
                    paths, nowhere, errors, special, num_threads, progress
                )
        check_apart(Path(out), paths)
        with writing(Path(out), "wb") as file:
            return self._engine.encode_files(paths, file, errors, special, num_threads, progress)

    def count_file(
        self,
        path: PathLike | Sequence[PathLike],
        *,
        special: Special = "parse",
        errors: Errors = "strict",
        num_threads: int | None = None,
        progress: bool = False,
    ) -> int:
        """How many ids `encode_file` would write."""
        return self.measure_file(
            path, special=special, errors=errors, num_threads=num_threads, progress=progress
        ).ids

    # Decoding

    def decode(self, ids: Iterable[int] | npt.NDArray[Any], *, errors: str = "replace") -> str:
        """The text of `ids`; bytes that are no UTF-8, as of half a character, become U+FFFD."""
        return self.decode_bytes(ids).decode(errors=errors)

    def decode_bytes(self, ids: Iterable[int] | npt.NDArray[Any]) -> bytes:
        """The bytes of `ids`; an id that the vocabulary does not have is a DataError."""
        return self._engine.decode(np.asarray(ids if hasattr(ids, "__array__") else list(ids)))

    def decode_file(self, path: PathLike) -> Iterator[bytes]:
        """The bytes behind a file of raw ids, in pieces; a file that is cut is a DataError."""
        position, rest = 0, b""
        for chunk in read_plain(Path(path)):
            data = rest + chunk
            whole = len(data) - len(data) % self.dtype.itemsize
            ids, rest = np.frombuffer(data[:whole], self.dtype), data[whole:]
            try:
                yield self._engine.decode(ids, position)
            except DataError as error:
                raise DataError(f"{path}: {error}") from None
            position += len(ids)
        if rest:
            raise DataError(f"{path}: ends inside an id: the file is cut, or not {self.dtype}")

    # Files

    def save(self, directory: PathLike) -> None:
        """Save to a folder that `load` reads; GPT-2's two files are in it."""
        formats.save_folder(self._vocabulary, Path(directory))

    @classmethod
    def load(cls, directory: PathLike) -> Self:
        """Load what `save` wrote; a damaged or foreign folder is a DataError."""
        return cls._of(formats.load_folder(Path(directory)))

    @classmethod
    def from_files(
        cls,
        vocab_path: PathLike,
        merges_path: PathLike,
        special_tokens: Sequence[str] | Mapping[str, int] | None = None,
        pattern: str = "gpt2",
    ) -> Self:
        """Load GPT-2's `vocab.json` and `merges.txt`, written in its printable byte alphabet."""
        return cls._of(
            formats.read_gpt2(Path(vocab_path), Path(merges_path), special_tokens, pattern)
        )

    def to_huggingface(self, path: PathLike) -> None:
        """Write a `tokenizer.json` for `tokenizers` and `transformers`."""
        interchange.write_huggingface(self._vocabulary, Path(path))

    @classmethod
    def from_huggingface(cls, path: PathLike) -> Self:
        """Load a byte-level BPE `tokenizer.json`; added tokens become special tokens."""
        return cls._of(interchange.read_huggingface(Path(path)))

    def to_tiktoken(self, path: PathLike) -> None:
        """Write the ranks of the ordinary tokens; tiktoken takes pattern and specials apart."""
        ranks.write_tiktoken(self._vocabulary, Path(path))

    @classmethod
    def from_tiktoken(
        cls,
        path: PathLike,
        special_tokens: Sequence[str] | Mapping[str, int] | None = None,
        pattern: str | None = None,
    ) -> Self:
        """Load a file of tiktoken ranks; one that tiktoken does not publish needs a `pattern`."""
        return cls._of(ranks.read_tiktoken(Path(path), special_tokens, pattern))


def byte_tokenizer(special_tokens: Sequence[str] = ()) -> Tokenizer:
    """The tokenizer without merges: the 256 bytes, then the special tokens."""
    return Tokenizer({byte: bytes([byte]) for byte in range(256)}, [], special_tokens)
