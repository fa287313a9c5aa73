"""Labelled texts for a classifier: fastText's lines, JSON lines, or one file for each label."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lmlab.cleaning.fasttext import LABEL, one_line
from lmlab.errors import DataError, UserError
from lmlab.io.compression import read_blocks

Example = tuple[str, str]
"""(label, text)."""

_WORD = re.compile(r"[^ \t\v\f\r\n\0]+")
"""What fastText takes for a word: other white space, such as U+00A0, is a part of it."""
_FORMATS = (
    "give lines of `__label__NAME text`, JSON lines with `text` and `label`, or LABEL=FILE for a "
    "file of one label"
)


def read_examples(sources: Sequence[str]) -> list[Example]:
    """Return the distinct examples of files, given as FILE or LABEL=FILE; .gz and .zst are read.

    Raises DataError with file and line where there is no label or no text, and UserError when there
    are fewer than two labels.
    """
    examples = list(dict.fromkeys(pair for source in sources for pair in _read(source)))
    counts = Counter(label for label, _ in examples)
    if len(counts) < 2:
        found = ", ".join(counts) or "none"
        raise UserError(f"a classifier needs two labels or more, found {found}; {_FORMATS}")
    rare = [label for label, count in counts.items() if count < 2]
    if rare:
        raise UserError(
            f"only one text has the label {rare[0]}: give at least two, one is held out"
        )
    return examples


def _read(source: str) -> Iterator[Example]:
    name, equals, rest = source.partition("=")
    fixed, path = (
        (name, Path(rest)) if equals and not Path(source).exists() else (None, Path(source))
    )
    if fixed is not None and not re.fullmatch(r"\S+", fixed):
        raise UserError(f"{source!r}: a label has no white space and is not empty")
    for number, line in enumerate(_lines(read_blocks(path)), start=1):
        if not line.strip():
            continue
        try:
            text = line.decode("utf-8")
            label, text = _parse(text, fixed)
        except ValueError as error:
            raise DataError(f"{path}:{number}: {error}; {_FORMATS}") from None
        if text := " ".join(_WORD.findall(one_line(text))):
            yield label, text


def _parse(line: str, fixed: str | None) -> Example:
    if line.startswith("{"):
        record = json.loads(line)
        text, label = record.get("text"), record.get("label", fixed)
        if not isinstance(text, str):
            raise ValueError("there is no `text`")
        if fixed is not None:
            return fixed, text
        if not isinstance(label, str | int) or not re.fullmatch(r"\S+", str(label)):
            raise ValueError("there is no `label` without white space")
        return str(label), text
    if fixed is not None:
        return fixed, line
    first, _, text = line.partition(" ")
    if not first.startswith(LABEL) or first == LABEL:
        raise ValueError("there is no label")
    return first.removeprefix(LABEL), text


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    begun: list[bytes] = []  # pieces of a line that has not ended
    for block in blocks:
        first, *lines = block.split(b"\n")
        begun.append(first)
        for line in lines:
            yield b"".join(begun)
            begun = [line]
    yield b"".join(begun)


def split_examples(
    examples: Sequence[Example], held_out: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Return (training, held-out) examples: the same share of each label, at least one."""
    shuffled = list(examples)
    random.Random(seed).shuffle(shuffled)
    totals = Counter(label for label, _ in shuffled)
    wanted = {
        label: min(count - 1, max(1, round(held_out * count))) for label, count in totals.items()
    }
    parts: tuple[list[Example], list[Example]] = ([], [])
    for example in shuffled:
        held = wanted[example[0]] > 0
        wanted[example[0]] -= held
        parts[held].append(example)
    return parts
