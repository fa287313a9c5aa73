"""Problems in JSON lines: read, and written for supervised training."""

import json
from hashlib import blake2b
from pathlib import Path

from lmlab.alignment.problems.config import ProblemFilesConfig
from lmlab.alignment.problems.problem import Problem, Problems
from lmlab.errors import DataError, UserError
from lmlab.files import atomic_write

TRAIN, HELD_OUT = "train.jsonl", "validation.jsonl"
DEMONSTRATIONS = "demonstrations.jsonl"


def read_problems(config: ProblemFilesConfig) -> Problems:
    """Return the problems of two files; raises DataError with the line that is wrong."""
    parts = (_read(path, config) for path in (config.path, config.validation_path))
    return Problems(*parts)


def _read(path: Path, config: ProblemFilesConfig) -> tuple[Problem, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error})") from error
        values = []
        for field in (config.prompt_field, config.answer_field):
            value = row.get(field) if isinstance(row, dict) else None
            if not isinstance(value, str | int | float) or value == "":
                raise DataError(
                    f"{path}, line {number}: needs a text in the field '{field}'; set "
                    "task.problems.prompt_field and task.problems.answer_field"
                )
            values.append(str(value))
        problems.append(Problem(*values))
    return tuple(problems)


def write_problems(
    problems: Problems, folder: Path, demonstrations: int = 0
) -> list[tuple[Path, int]]:
    """Write train.jsonl and validation.jsonl; return their paths with the number of problems.

    With `demonstrations` also demonstrations.jsonl: so many of the training problems, chosen by a
    hash. The fields of a line: `prompt`, `completion`, `answer`, and `text`, which is prompt and
    completion together. Raises UserError for more demonstrations than there are problems.
    """
    if demonstrations > len(problems.train):
        raise UserError(
            f"--demonstrations must be at most the {len(problems.train):,} training problems, got "
            f"{demonstrations:,}"
        )
    parts = {TRAIN: problems.train, HELD_OUT: problems.held_out}
    if demonstrations:
        parts[DEMONSTRATIONS] = tuple(sorted(problems.train, key=_place)[:demonstrations])
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        with atomic_write(folder / name) as file:
            for problem in part:
                row = {
                    "prompt": problem.prompt,
                    "completion": problem.solution,
                    "answer": problem.truth,
                    "text": problem.prompt + problem.solution,
                }
                file.write(json.dumps(row) + "\n")
    return [(folder / name, len(part)) for name, part in parts.items()]


def _place(problem: Problem) -> bytes:
    return blake2b(f"demonstration {problem.prompt}".encode(), digest_size=8).digest()
