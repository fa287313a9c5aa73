"""Problems in JSON lines: read, and written for supervised training."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from lmlab.alignment.problems.config import ProblemFilesConfig
from lmlab.alignment.problems.problem import Problem, Problems, hashed
from lmlab.alignment.rows import Row, read_rows
from lmlab.errors import DataError, UserError
from lmlab.files import atomic_write

TRAIN, HELD_OUT = "train.jsonl", "validation.jsonl"
DEMONSTRATIONS = "demonstrations.jsonl"


def read_problems(config: ProblemFilesConfig, say: Callable[[str], None]) -> Problems:
    """Return the problems of two files; raises DataError with the line that is wrong.

    Training problems whose prompt is also held out are left out; `say` is told how many.
    """
    train, held_out = (
        problems_of(
            read_rows(f"task.problems.{key}", [str(getattr(config, key))], {}),
            config.prompt_field,
            config.answer_field,
            "set task.problems.prompt_field and task.problems.answer_field",
        )
        for key in ("path", "validation_path")
    )
    prompts = {problem.prompt for problem in held_out}
    kept = tuple(problem for problem in train if problem.prompt not in prompts)
    if len(kept) < len(train):
        say(
            f"{len(train) - len(kept):,} of the {len(train):,} problems in {config.path} are left "
            f"out: they are also in {config.validation_path}, which is held out"
        )
    return Problems(kept, held_out)


def problems_of(
    rows: Sequence[Row], prompt_field: str, answer_field: str, advice: str
) -> tuple[Problem, ...]:
    """Return the problem of each row; raises DataError, which ends in `advice`, for a bad one."""
    problems = []
    for row in rows:
        values = []
        for field in (prompt_field, answer_field):
            value = row.values.get(field)
            if not isinstance(value, str | int | float) or value == "":
                raise DataError(
                    f"{row.place}: needs a text in the field '{field}' (there is "
                    f"{', '.join(row.values) or 'nothing'}); {advice}"
                )
            values.append(str(value))
        problems.append(Problem(*values))
    return tuple(problems)


def write_problems(
    problems: Problems, folder: Path, demonstrations: int = 0
) -> list[tuple[Path, int]]:
    """Write train.jsonl and validation.jsonl; return their paths with the number of problems.

    With `demonstrations` also demonstrations.jsonl: so many of the training problems, chosen by a
    hash. The fields of a line: `prompt`, `answer`, and where a right response is known `completion`
    and `text`, which is prompt and completion together. Raises UserError for more demonstrations
    than there are training problems with a known response.
    """
    known = [problem for problem in problems.train if problem.solution]
    if not 0 <= demonstrations <= len(known):
        raise UserError(
            f"--demonstrations must be from 0 to {len(known):,}, the training problems with a "
            f"known response, got {demonstrations:,}"
        )
    parts = {TRAIN: problems.train, HELD_OUT: problems.held_out}
    if demonstrations:
        order = sorted(known, key=lambda problem: hashed("demonstration", problem))
        parts[DEMONSTRATIONS] = tuple(order[:demonstrations])
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        with atomic_write(folder / name) as file:
            for problem in part:
                row = {"prompt": problem.prompt, "answer": problem.truth}
                if problem.solution:
                    row["completion"] = problem.solution
                    row["text"] = problem.prompt + problem.solution
                file.write(json.dumps(row) + "\n")
    return [(folder / name, len(part)) for name, part in parts.items()]
