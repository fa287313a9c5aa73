"""Multiple-choice questions in JSON lines."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmlab.errors import DataError
from lmlab.io.compression import read_blocks
from lmlab.io.formats import BOM
from lmlab.io.rows import split_blocks

KEYS = ("question", "context")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Question:
    """A text, and possible continuations of it."""

    context: str
    choices: tuple[str, ...]
    answer: int
    """Index of the correct choice."""
    source: str
    """File and line."""


def read_questions(path: Path, limit: int | None = None) -> list[Question]:
    """Return the questions in a file, also a compressed one; `limit` is how many at most.

    A line is an object with `question` or `context` (a text), `choices` (a list of texts) and
    `answer` (an index from 0, or a letter from A); further fields are ignored. Raises DataError
    that names the file and the line.
    """
    questions: list[Question] = []
    for number, (_, line) in enumerate(split_blocks(read_blocks(path), b"\n", path), 1):
        if limit is not None and len(questions) == limit:
            break
        where = f"{path}:{number}"
        try:
            text = bytes(line).removeprefix(BOM if number == 1 else b"").decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where}: invalid UTF-8 at byte {error.start} of the line; convert the file"
            ) from None
        if text.strip():
            questions.append(_question(text, where))
    if not questions:
        raise DataError(
            f"{path}: holds no question; a line is an object with question, choices and answer"
        )
    return questions


def _question(line: str, where: str) -> Question:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise DataError(
            f"{where}: not a JSON object; write one object with question, choices and answer a line"
        )
    given = [key for key in KEYS if key in row]
    if len(given) != 1:
        raise DataError(
            f"{where}: needs one of the fields 'question' and 'context', has "
            f"{', '.join(map(repr, row)) or 'none'}"
        )
    context = _text(row[given[0]], f"{where}: {given[0]!r}")
    choices = row.get("choices")
    if not isinstance(choices, list) or len(choices) < 2:
        raise DataError(f"{where}: 'choices' must be a list of two texts or more, {_has(choices)}")
    texts = tuple(_text(choice, f"{where}: a choice") for choice in choices)
    if not all(text.strip() for text in texts):
        raise DataError(f"{where}: a choice is empty; give each choice some text")
    return Question(context, texts, _answer(row.get("answer"), len(texts), where), where)


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{what} must be a text, {_has(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(f"{what} has half a surrogate pair, which is not text") from None
    return value


def _answer(value: Any, choices: int, where: str) -> int:
    letters = LETTERS[:choices]
    if isinstance(value, str) and len(value.strip()) == 1 and value.strip().upper() in letters:
        return letters.index(value.strip().upper())
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < choices:
        return value
    raise DataError(
        f"{where}: 'answer' must be an index from 0 to {choices - 1} or a letter from A to "
        f"{letters[-1]}, {_has(value)}"
    )


def _has(value: Any) -> str:
    return "is missing" if value is None else f"got {json.dumps(value):.60}"
