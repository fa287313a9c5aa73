"""Accuracy of generated answers to problems, as rewards judge them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmlab.alignment.accuracy import (
    format_answer_counts,
    is_right,
    pass_at_k,
    wilson_interval,
)
from lmlab.alignment.problems.files import problems_of
from lmlab.alignment.problems.problem import Problem
from lmlab.alignment.rewards import Grader, Reward
from lmlab.alignment.rollouts import Decoding, Request, generate_responses, response_seed
from lmlab.alignment.rows import read_rows
from lmlab.errors import UserError
from lmlab.evaluation.estimate import Interval, ratio
from lmlab.evaluation.plot import Panel
from lmlab.evaluation.results import Preference, Report, Row, numbers
from lmlab.loading import TrainedRun
from lmlab.tokenizer import Tokenizer

AT_A_TIME = 256
"""Responses generated and judged at a time."""


@dataclass(frozen=True)
class ProblemResult:
    """Rewards of a model's answers to problems."""

    greedy: tuple[Reward, ...]
    """Of the likeliest answer to each problem."""
    sampled: tuple[tuple[Reward, ...], ...]
    """Of the samples of each problem; empty: none were drawn."""
    preferences: tuple[Preference, ...]
    """The first right and the first wrong sample of each problem that has both."""
    failures: int
    """Answers whose reward could not be computed."""

    @property
    def greedy_right(self) -> int:
        """Problems whose likeliest answer is right."""
        return sum(map(is_right, self.greedy))

    def pass_at(self, k: int) -> np.ndarray:
        """Return pass@k of each problem."""
        return np.array(
            [pass_at_k(len(group), sum(map(is_right, group)), k) for group in self.sampled]
        )


def read_problem_file(
    path: Path, prompt_field: str, answer_field: str, template: str, limit: int | None
) -> list[Problem]:
    """Return the problems in JSON lines; raises DataError naming the line that is wrong."""
    rows = read_rows("--problems", [str(path)], {})[:limit]
    advice = "see --prompt-field, --answer-field"
    return [
        replace(problem, prompt=template.replace("{prompt}", problem.prompt))
        for problem in problems_of(rows, prompt_field, answer_field, advice)
    ]


def require_room(
    problems: Sequence[Problem],
    tokenizer: Tokenizer,
    context_length: int,
    max_new_tokens: int,
    run: str,
) -> None:
    """Raise UserError for a prompt that leaves no room for an answer in the context of `run`."""
    room = context_length - max_new_tokens
    for problem in problems:
        if not 0 < (length := len(tokenizer.encode(problem.prompt))) <= room:
            raise UserError(
                f"the prompt {problem.prompt!r:.40} has {length:,} tokens; with --max-new-tokens "
                f"{max_new_tokens} it needs 1 to {max(room, 0):,} in the context of {run}"
            )


def answer_problems(
    run: TrainedRun,
    problems: Sequence[Problem],
    grader: Grader,
    decoding: Decoding,
    *,
    samples: int,
    seed: int,
    advance: Callable[[int], object] = lambda _: None,
) -> ProblemResult:
    """Return the rewards of the likeliest answer and of `samples` drawn ones to each problem.

    `require_room` says whether the context has room for them.
    """
    prompts = [tuple(run.tokenizer.encode(problem.prompt)) for problem in problems]
    before = grader.failures.total()
    greedy = _rewarded(run, problems, prompts, grader, replace(decoding, temperature=0.0), 1, seed)
    advance(len(problems))
    sampled: list[list[_Answer]] = []
    if samples:
        sampled = _rewarded(run, problems, prompts, grader, decoding, samples, seed)
    return ProblemResult(
        tuple(group[0].reward for group in greedy),
        tuple(tuple(answer.reward for answer in group) for group in sampled),
        tuple(_preferences(problems, sampled)),
        grader.failures.total() - before,
    )


class _Answer(NamedTuple):
    text: str
    reward: Reward


def _preferences(
    problems: Sequence[Problem], sampled: Sequence[Sequence[_Answer]]
) -> Iterator[Preference]:
    for problem, group in zip(problems, sampled, strict=False):  # there may be no samples
        written = [answer for answer in group if answer.text.strip()]  # training refuses others
        right = [answer.text for answer in written if is_right(answer.reward)]
        wrong = [answer.text for answer in written if not is_right(answer.reward)]
        if right and wrong:
            yield Preference(problem.prompt, right[0], wrong[0])


def _rewarded(
    run: TrainedRun,
    problems: Sequence[Problem],
    prompts: Sequence[tuple[int, ...]],
    grader: Grader,
    decoding: Decoding,
    samples: int,
    seed: int,
) -> list[list[_Answer]]:
    """Return `samples` answers to each problem."""
    places = [(place, sample) for place in range(len(problems)) for sample in range(samples)]
    answers: list[_Answer] = []
    for start in range(0, len(places), AT_A_TIME):
        part = places[start : start + AT_A_TIME]
        requests = [
            Request(prompts[place], response_seed(seed, -1, place, sample))
            for place, sample in part
        ]
        responses = generate_responses(run.model, run.tokenizer, requests, decoding)
        assert responses is not None
        texts = [response.text for response in responses]
        rewards = grader(
            [
                (problems[place].prompt, text, problems[place].truth)
                for (place, _), text in zip(part, texts, strict=True)
            ]
        )
        answers += map(_Answer, texts, rewards)
    return [answers[i : i + samples] for i in range(0, len(answers), samples)]


def report_problems(
    results: Mapping[tuple[str, str], ProblemResult], pass_at: Sequence[int]
) -> Report:
    """Return the report on the accuracy of runs on problems, (file, run) -> result."""
    rows: list[Row] = []
    cells: list[list[str]] = []
    notes = ["Greedy: 95 % interval by Wilson; ±: 95 % confidence interval over problems."]
    panels: dict[str, list[tuple[str, Interval]]] = {}
    for (file, run), result in results.items():
        total = len(result.greedy)
        low, high = wilson_interval(result.greedy_right, total)
        share = result.greedy_right / total
        counts = format_answer_counts(result.greedy)
        row: Row = {"file": file, "run": run, "greedy_accuracy": share}
        row |= {"greedy_accuracy_low": low, "greedy_accuracy_high": high}
        cell = [file, run, f"{share:.3f} [{low:.3f}, {high:.3f}]"]
        for k in pass_at if result.sampled else ():
            values = result.pass_at(k)
            estimate = ratio(values, np.ones(len(values)))
            row |= numbers(f"pass_at_{k}", estimate)
            half = estimate.half_width
            cell.append(f"{estimate.value:.3f}" + ("" if half is None else f" ± {half:.3f}"))
        row |= {f"format_answer_{key.replace(',', '_')}": count for key, count in counts.items()}
        row |= {"problems": total, "failed_rewards": result.failures}
        rows.append(row)
        shown = ", ".join(f"({key}) {count:,}" for key, count in counts.items())
        cells.append([*cell, shown, f"{total:,}"])
        if result.failures:
            notes.append(f"{run}: the rewards of {result.failures:,} answers failed, and are 0.")
        panels.setdefault(file, []).append((run, Interval(share, low, high)))
    head = ["file", "run", "greedy accuracy"]
    sampled = any(result.sampled for result in results.values())
    head += [_title(k) for k in pass_at] if sampled else []
    head += ["(format, answer) greedy", "problems"]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    rows = [{key: row.get(key, 0) for key in keys} for row in rows]
    drawn = [
        Panel(file, "greedy accuracy", found, limits=(-0.05, 1.05))
        for file, found in panels.items()
    ]
    pairs = [pair for result in results.values() for pair in result.preferences]
    return Report(rows, head, cells, 2, notes, drawn, pairs)


def _title(k: int) -> str:
    return "sampled accuracy" if k == 1 else f"pass@{k}"
