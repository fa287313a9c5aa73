"""What the subcommands of `lmlab tokenizer` do; `cli.py` says how they are called."""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO

import numpy as np

from lmlab.errors import UserError
from lmlab.files import is_device_or_pipe, is_plain_file
from lmlab.io.rows import has_rows, read_texts
from lmlab.tokenizer.bpe import Tokenizer
from lmlab.tokenizer.outputs import check_apart, writing
from lmlab.tokenizer.train import train_bpe

END_OF_DOCUMENT = "<|endoftext|>"
DOCUMENTS = 256
"""Documents that are encoded at a time."""


def train(options: argparse.Namespace) -> None:
    """Train on files and save the folder."""
    texts = _row_texts(options.inputs, options)
    start = time.perf_counter()
    vocab, merges = train_bpe(
        options.inputs if texts is None else texts,
        options.vocab_size,
        options.special,
        pattern=options.pattern,
        documents=texts is not None,
        errors=options.errors,
        num_threads=_threads(options),
        progress=not options.quiet,
    )
    if not merges and len(vocab) < options.vocab_size:
        raise UserError(
            f"{', '.join(map(shown, options.inputs))}: no word of two bytes or more to learn from; "
            f"give other text, or --vocab-size {len(vocab)} for single bytes"
        )
    tokenizer = Tokenizer(vocab, merges, options.special, options.pattern)
    tokenizer.save(options.out)
    seconds = time.perf_counter() - start
    print(f"{shown(options.out)}: {tokenizer.vocab_size:,} tokens in {seconds:.1f} s")
    if tokenizer.vocab_size < options.vocab_size:
        print(f"no pair was left to merge before {options.vocab_size:,} tokens were reached")


def encode(options: argparse.Namespace) -> None:
    """Encode files to one file of ids."""
    texts = _row_texts(options.inputs, options)
    if texts is not None and options.special not in (None, "text"):
        raise UserError(
            f"--special {options.special}: special tokens in rows are ordinary text; leave it out, "
            "or give --raw to read the files as plain text"
        )
    tokenizer = _open(options.tokenizer)
    start = time.perf_counter()
    if texts is None:
        count, size = tokenizer.measure_file(
            options.inputs,
            options.out,
            special=options.special or "parse",
            errors=options.errors,
            num_threads=_threads(options),
            progress=not options.quiet,
        )
    else:
        check_apart(options.out, options.inputs)
        with writing(options.out, "wb") as file:
            count, size = _encode_documents(tokenizer, texts, options, file)
    seconds = time.perf_counter() - start
    print(
        f"{shown(options.out)}: {count:,} ids ({tokenizer.dtype}) of {size:,} bytes, "
        f"{size / max(count, 1):.2f} bytes per token, {size / 1e6 / seconds:.1f} MB/s"
    )


def decode(options: argparse.Namespace) -> None:
    """Decode a file of ids, to a file or to standard output."""
    pieces = _open(options.tokenizer).decode_file(options.ids)
    if options.out is None:
        sys.stdout.buffer.writelines(pieces)
    else:
        check_apart(options.out, [options.ids])
        with writing(options.out, "wb") as file:
            file.writelines(pieces)


def inspect(options: argparse.Namespace) -> None:
    """Print sizes, special tokens and the longest tokens."""
    tokenizer = _open(options.tokenizer)
    lengths = tokenizer.byte_lengths()
    ordinary = [i for i in tokenizer.vocab if lengths[i]]
    print(f"tokens         {len(tokenizer.vocab):,}, ids {tokenizer.dtype}")
    print(f"merges         {len(tokenizer.merges):,}")
    print(f"pattern        {tokenizer.pattern}")
    specials = ", ".join(f"{name} = {i}" for name, i in tokenizer.special_tokens.items())
    print(f"special tokens {specials or 'none'}")
    print(f"bytes a token  {lengths[ordinary].mean():.2f} on average, {lengths.max()} at most")
    longest = sorted(ordinary, key=lambda i: (-lengths[i], i))[: max(options.longest, 0)]
    if longest:
        print()
        rows = [[str(i), str(lengths[i]), show_token(tokenizer.vocab[i])] for i in longest]
        print(table(["id", "bytes", "token"], rows, right=2))


def compare(options: argparse.Namespace) -> None:
    """Print the bytes per token of each tokenizer on each text."""
    tokenizers = [_open(path) for path in options.tokenizers]
    for path in options.on:
        if len(tokenizers) > 1 and is_device_or_pipe(path):
            raise UserError(f"{path}: a pipe is read only once, by one tokenizer; give a file")
        if is_plain_file(path) and not path.stat().st_size:  # before the long work on others
            raise _nothing_in(path)
    ratios = [
        [_bytes_per_token(tokenizer, path, options) for path in options.on]
        for tokenizer in tokenizers
    ]
    rows = [
        [*(f"{ratio:.2f}" for ratio in row), f"{tokenizer.vocab_size:,}", shown(name)]
        for name, tokenizer, row in zip(options.tokenizers, tokenizers, ratios, strict=True)
    ]
    print("bytes per token")
    print(table([*map(shown, options.on), "tokens", "tokenizer"], rows, right=len(options.on) + 1))


def _bytes_per_token(tokenizer: Tokenizer, path: Path, options: argparse.Namespace) -> float:
    texts = _row_texts([path], options)
    if texts is None:
        count, size = tokenizer.measure_file(
            path, errors=options.errors, num_threads=_threads(options), progress=not options.quiet
        )
    else:
        count, size = _encode_documents(tokenizer, texts, options, None)
    if not count:
        raise _nothing_in(path)
    return size / count


def _nothing_in(path: Path) -> UserError:
    return UserError(f"{path}: is empty; there is nothing to compare on")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: int) -> str:
    """Columns of text, the first `right` of them aligned to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column < right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [header, *rows]
    )


def shown(path: Path) -> str:
    """A path as it can be printed, also one that is not UTF-8."""
    return os.fsencode(path).decode(errors="replace")


def show_token(token: bytes) -> str:
    """A token as Python writes it: as text when it is some, as bytes when it is not."""
    try:
        return repr(token.decode())
    except UnicodeDecodeError:
        return repr(token)


def _row_texts(paths: Sequence[Path], options: argparse.Namespace) -> Iterator[str] | None:
    """Return the documents of JSON lines and Parquet files; None for text files.

    Raises UserError for both together.
    """
    rows = [] if options.raw else [path for path in paths if has_rows(path)]
    if not rows:
        return None
    if len(rows) < len(paths):
        (other,) = [path for path in paths if path not in rows][:1]
        raise UserError(
            f"{rows[0]} holds documents in rows, {other} is plain text; give files of one kind, or "
            "--raw to read all as plain text"
        )
    return chain.from_iterable(read_texts(path, options.field, "--field") for path in rows)


def _encode_documents(
    tokenizer: Tokenizer, texts: Iterable[str], options: argparse.Namespace, out: IO[bytes] | None
) -> tuple[int, int]:
    """Return how many ids and bytes of text documents have, and write the ids to `out`.

    Written documents are each followed by <|endoftext|> where the tokenizer has it. Special tokens
    in a document are ordinary text.
    """
    end = tokenizer.special_tokens.get(END_OF_DOCUMENT)
    count = size = 0
    texts = iter(texts)
    while batch := list(islice(texts, DOCUMENTS)):
        for ids in tokenizer.encode_batch(batch, special="text", num_threads=_threads(options)):
            count += len(ids)
            if out is not None:
                out.write(ids.tobytes())
                if end is not None:
                    out.write(np.array([end], ids.dtype).tobytes())
                    count += 1
        size += sum(len(text.encode()) for text in batch)
    return count, size


def _threads(options: argparse.Namespace) -> int | None:
    threads: int | None = options.threads
    if threads is not None and threads < 1:
        raise UserError(f"--threads {threads}: give at least 1")
    return threads


def _open(path: Path) -> Tokenizer:
    return Tokenizer.from_huggingface(path) if path.suffix == ".json" else Tokenizer.load(path)
