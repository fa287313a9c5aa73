"""What the subcommands of `lmlab tokenizer` do; `cli.py` says how they are called."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lmlab.errors import UserError
from lmlab.files import is_device_or_pipe, is_plain_file
from lmlab.io.compression import read_blocks
from lmlab.io.formats import recognize_format
from lmlab.tokenizer.bpe import Tokenizer
from lmlab.tokenizer.outputs import check_apart, writing
from lmlab.tokenizer.train import train_bpe


def train(options: argparse.Namespace) -> None:
    """Train on files and save the folder."""
    _refuse_json(options.inputs, options)
    start = time.perf_counter()
    vocab, merges = train_bpe(
        options.inputs,
        options.vocab_size,
        options.special,
        pattern=options.pattern,
        errors=options.errors,
        num_threads=_threads(options),
        progress=not options.quiet,
    )
    tokenizer = Tokenizer(vocab, merges, options.special, options.pattern)
    tokenizer.save(options.out)
    seconds = time.perf_counter() - start
    print(f"{shown(options.out)}: {tokenizer.vocab_size:,} tokens in {seconds:.1f} s")
    if tokenizer.vocab_size < options.vocab_size:
        print(f"no pair was left to merge before {options.vocab_size:,} tokens were reached")


def encode(options: argparse.Namespace) -> None:
    """Encode files to one file of ids."""
    _refuse_json(options.inputs, options)
    tokenizer = _open(options.tokenizer)
    start = time.perf_counter()
    count, size = tokenizer.measure_file(
        options.inputs,
        options.out,
        special=options.special,
        errors=options.errors,
        num_threads=_threads(options),
        progress=not options.quiet,
    )
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
    _refuse_json(options.on, options)
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
    count, size = tokenizer.measure_file(
        path, errors=options.errors, num_threads=_threads(options), progress=not options.quiet
    )
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


def _refuse_json(paths: Sequence[Path], options: argparse.Namespace) -> None:
    """Raise a UserError for a JSON file, whose syntax would be taken for text."""
    for path in paths:
        if options.raw or not is_plain_file(path):
            continue
        if recognize_format(path, next(read_blocks(path), b"")) != "text":
            raise UserError(
                f"{path}: is JSON, which would be read as plain text; extract the text, e.g. "
                f"jq -r .text {path.name} > TEXT, or give --raw to read it as it is"
            )


def _threads(options: argparse.Namespace) -> int | None:
    threads: int | None = options.threads
    if threads is not None and threads < 1:
        raise UserError(f"--threads {threads}: give at least 1")
    return threads


def _open(path: Path) -> Tokenizer:
    return Tokenizer.from_huggingface(path) if path.suffix == ".json" else Tokenizer.load(path)
