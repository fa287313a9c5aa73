"""Prompts from files and from standard input."""

import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lmlab.errors import DataError, UserError
from lmlab.io.compression import BLOCK, read_blocks
from lmlab.io.formats import BOM, recognize_format

MAX_BYTES = 1 << 26
"""Bytes of a prompt file at most, decompressed; a context is far shorter."""
FIELD = "prompt"


def read_prompt_files(paths: Sequence[Path]) -> list[str]:
    """Return the prompts in files, plain or compressed by gzip or zstd.

    A file named .jsonl, .ndjson or .jl holds one prompt in the field `prompt` of each line. Any
    other file is one prompt, without its final newline. Raises DataError, naming file and line.
    """
    prompts: list[str] = []
    for path in paths:
        text = _decoded(str(path), read_blocks(path))
        if recognize_format(path, b"") == "jsonl":
            found = list(_json_lines(path, text))
            if not found:
                raise DataError(f'{path}: holds no prompts; one a line: {{"{FIELD}": "..."}}')
            prompts += found
        else:
            prompts.append(_without_newline(text))
    return prompts


def read_standard_input() -> str:
    """Return all of standard input as one prompt, without its final newline."""
    if sys.stdin is None:  # closed
        raise UserError("there is no standard input; give --prompt or --prompt-file")
    if isinstance(sys.stdin, io.TextIOWrapper):
        blocks: Iterable[bytes] = iter(lambda: sys.stdin.buffer.read(BLOCK), b"")
    else:
        blocks = [sys.stdin.read().encode()]
    return _without_newline(_decoded("standard input", blocks))


def require_text(prompt: str, name: str) -> None:
    """Raise DataError for a prompt that UTF-8 cannot hold, such as bytes of a shell."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{name} is not UTF-8 text at character {error.start}") from None


def _decoded(name: str, blocks: Iterable[bytes]) -> str:
    data = bytearray()
    for block in blocks:
        data += block
        if len(data) > MAX_BYTES:
            raise DataError(f"{name}: has more than {MAX_BYTES >> 20:,} MiB; give a shorter prompt")
    if data.startswith(BOM):
        del data[: len(BOM)]
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: invalid UTF-8 at byte {error.start}; a prompt is UTF-8 text"
        ) from None
    if (at := text.find("\0")) >= 0:
        raise DataError(f"{name}: a NUL at character {at}; a prompt is text, not a binary file")
    return text


def _without_newline(text: str) -> str:
    return text[: -2 if text.endswith("\r\n") else -1] if text.endswith("\n") else text


def _json_lines(path: Path, text: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(f"{path}:{number}: not a JSON object") from None
        if not isinstance(row, dict) or FIELD not in row:
            has = ", ".join(map(repr, row)) if isinstance(row, dict) else "no object"
            raise DataError(f"{path}:{number}: no field '{FIELD}' (there is {has or 'none'})")
        prompt = row[FIELD]
        if not isinstance(prompt, str):
            raise DataError(f"{path}:{number}: field '{FIELD}' holds {prompt!r:.40}, not text")
        require_text(prompt, f"{path}:{number}: field '{FIELD}'")
        yield prompt
