"""Rows of JSON lines, each with the place that an error names."""

import codecs
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from lmlab.data.paths import find_files
from lmlab.errors import DataError
from lmlab.io.compression import read_blocks


@dataclass(frozen=True)
class Row:
    """One object of a file."""

    values: Mapping[str, Any]
    place: str
    """File and line."""


def read_rows(key: str, patterns: Sequence[str], rename: Mapping[str, str]) -> list[Row]:
    """Return the rows of files, in sorted order, with columns renamed.

    `patterns` are paths, folders or patterns, the value of the configuration key `key`; files are
    plain or compressed by gzip or zstd. Raises DataError with the file and the line.
    """
    rows: list[Row] = []
    for path in find_files(key, patterns, Path()).paths:
        before = len(rows)
        for number, line in enumerate(_lines(path), start=1):
            if line.strip():
                rows.append(Row(_object(line, f"{path}:{number}", rename), f"{path}:{number}"))
        if len(rows) == before:
            raise DataError(f"{path}: holds no rows; one JSON object a line")
    return rows


def split_rows(
    rows: Sequence[Row], fraction: float, prompts: Sequence[str]
) -> tuple[list[Row], list[Row]]:
    """Return the rows to train on and those held out, chosen by a hash.

    Rows with one prompt are on one side, by the hash of the first of their texts; rows without a
    prompt, and all rows where they have but one prompt, each by their own. Their order does not
    matter.
    """
    train, held_out = list[Row](), list[Row]()
    texts = [_text(row) for row in rows]
    firsts: dict[str, str] = {}
    for prompt, text in zip(prompts, texts, strict=True):
        firsts[prompt] = min(text, firsts.get(prompt, text))
    for row, prompt, text in zip(rows, prompts, texts, strict=True):
        hashed = firsts[prompt] if prompt and len(firsts) > 1 else text
        digest = blake2b(hashed.encode(), digest_size=8).digest()
        number = int.from_bytes(digest, "big")
        (held_out if number < fraction * 2**64 else train).append(row)
    return train, held_out


def without_held_out(train: Sequence[Row], held_out: Sequence[Row]) -> list[Row]:
    """Return the rows to train on whose values are not those of a row that is held out."""
    known = {_text(row) for row in held_out}
    return [row for row in train if _text(row) not in known]


def _text(row: Row) -> str:
    return json.dumps(row.values, sort_keys=True)


def _lines(path: Path) -> Iterator[str]:
    decode = codecs.getincrementaldecoder("utf-8-sig")().decode
    rest = ""
    try:
        for block in read_blocks(path):
            *whole, rest = (rest + decode(block)).split("\n")
            yield from whole
        yield rest + decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}); convert it") from None


def _object(line: str, place: str, rename: Mapping[str, str]) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError(f"{place}: not a JSON object") from None
    if not isinstance(values, dict):
        raise DataError(f"{place}: not a JSON object, but {type(values).__name__}")
    return {rename.get(name, name): value for name, value in values.items()}
