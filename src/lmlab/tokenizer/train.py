"""Training BPE: text into the native counter, merges out of it."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from lmlab.io.compression import read_blocks
from lmlab.tokenizer.inputs import (
    add_file,
    byte_bar,
    counted,
    decode_chunks,
    invalid_utf8,
)
from lmlab.tokenizer.native import Counter, Errors, InvalidUtf8, PatternName
from lmlab.tokenizer.pretokenize import (
    PATTERNS,
    check_special_tokens,
    compile_pattern,
    split_pretokens,
    to_utf8,
)
from lmlab.tokenizer.reference import build_vocab, check_vocab_size
from lmlab.tokenizer.special import SpecialSplitter
from lmlab.tokenizer.vocabulary import Pair

_HELD = 1 << 20  # bytes of documents that are counted at a time
TrainingInput = str | Path | Sequence[str | Path] | Iterable[str] | Iterable[bytes]


def train_bpe(
    input: TrainingInput,
    vocab_size: int,
    special_tokens: Sequence[str] = (),
    *,
    pattern: str = "gpt2",
    documents: bool = False,
    progress: bool = False,
    num_threads: int | None = None,
    errors: Errors = "strict",
) -> tuple[dict[int, bytes], list[Pair]]:
    """Train byte-level BPE: (vocabulary, merges in the order of creation).

    `input` is a path or a list of paths (plain, .gz or .zst; each file is a text of its own), or
    an iterator of str or of bytes, the pieces of one text. With `documents` each item of the
    iterator is a text of its own instead, in which special tokens are ordinary text. Ids are the
    256 bytes, the merges, the special tokens; training stops early when no pair is left. The most
    frequent pair is merged, of equally frequent ones the lexicographically greatest. The result
    depends on nothing else, and memory only on the distinct pretokens (with a pattern of your own,
    whose look-around could reach anywhere, also on the longest text between two special tokens).

    Raises UserError for a vocabulary too small, bad special tokens or a pattern that does not
    cover the text, DataError (naming file and byte) for what cannot be read or is not UTF-8.
    """
    check_special_tokens(special_tokens)
    check_vocab_size(vocab_size, len(special_tokens))
    compile_pattern(pattern)
    paths = _paths(input)
    native_pattern = cast(PatternName, pattern) if pattern in PATTERNS else None
    with byte_bar(paths or [], "read", show=progress) as bar:
        counter = Counter(
            native_pattern,
            [to_utf8(token) for token in special_tokens],
            num_threads=num_threads,
            errors=errors,
            progress=lambda done: bar.update(done - bar.n),
        )
        if native_pattern is None:
            splitter = SpecialSplitter([] if documents else special_tokens)
            for text in _texts(input, paths, documents, errors, bar):
                _count_by_regex(counter, text, splitter, pattern)
        elif paths is not None:
            for path in paths:
                add_file(counter, path)
        elif documents:
            _count_documents(counter, cast(Iterable[str | bytes], input))
        else:
            _count_pieces(counter, cast(Iterable[str | bytes], input))
    num_merges = vocab_size - 256 - len(special_tokens)
    with tqdm(total=num_merges, desc="merge", unit="merge", disable=not progress) as bar:
        merges = counter.train(num_merges, lambda done: bar.update(done - bar.n))
        bar.update(len(merges) - bar.n)
    return build_vocab(merges, special_tokens), merges


def _paths(input: TrainingInput) -> list[Path] | None:
    """The files to read, or None when `input` is the text itself."""
    if isinstance(input, str | Path):
        return [Path(input)]
    if isinstance(input, Sequence) and all(isinstance(item, str | Path) for item in input):
        return [Path(cast(str | Path, item)) for item in input]
    return None


def _count_pieces(counter: Counter, pieces: Iterable[str | bytes]) -> None:
    try:
        for piece in pieces:
            counter.add(to_utf8(piece) if isinstance(piece, str) else piece)
        counter.end_text()
    except InvalidUtf8 as error:
        raise invalid_utf8("text", error) from None


def _count_documents(counter: Counter, documents: Iterable[str | bytes]) -> None:
    held: list[bytes] = []
    size = 0
    for document in documents:
        held.append(to_utf8(document) if isinstance(document, str) else document)
        size += len(held[-1])
        if size > _HELD or len(held) > _HELD // 64:
            counter.add_texts(held)
            held, size = [], 0
    counter.add_texts(held)


def _texts(
    input: TrainingInput,
    paths: Sequence[Path] | None,
    documents: bool,
    errors: Errors,
    bar: "tqdm[Any]",
) -> Iterator[Iterator[str]]:
    """The texts, each as its pieces."""
    if paths is None:
        pieces = cast(Iterable[str | bytes], input)
        chunks = (to_utf8(piece) if isinstance(piece, str) else piece for piece in pieces)
        for text in ([chunk] for chunk in chunks) if documents else [chunks]:
            yield decode_chunks(counted(text, bar.update), "text", errors)
        return
    for path in paths:
        yield decode_chunks(counted(read_blocks(path), bar.update), str(path), errors)


def _count_by_regex(
    counter: Counter, pieces: Iterable[str], splitter: SpecialSplitter, pattern: str
) -> None:
    for part, _ in splitter.split(pieces):
        pretokens = map(to_utf8, split_pretokens(part, pattern))
        while batch := list(itertools.islice(pretokens, 1 << 16)):
            counter.add_pretokens(batch)
