"""What `lmlab evaluate` does."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from lmlab.config import load_yaml
from lmlab.errors import UserError
from lmlab.evaluation.candidates import Candidate, find_candidates
from lmlab.evaluation.corpora import TextCorpus, common_held_out, corpus_name, from_paths
from lmlab.evaluation.multiple_choice import ChoiceResult, answer_questions
from lmlab.evaluation.output import output_format, rendered, write, write_preferences
from lmlab.evaluation.plot import write_plot
from lmlab.evaluation.questions import read_questions
from lmlab.evaluation.results import Report, report_choices, report_text
from lmlab.evaluation.scorer import Scorer
from lmlab.evaluation.text import TextResult, evaluate_text
from lmlab.evaluation.windows import check_stride
from lmlab.files import require_writable
from lmlab.io.progress import bar
from lmlab.layout import CONFIG
from lmlab.loading import TrainedRun, load, load_tokenizer
from lmlab.training.device import keep_freed_memory

ONLY_TEXT = ("stride", "context_length", "separator", "jsonl_field", "data_format")
ONLY_TASKS = ("include_path", "num_fewshot")
ONLY_PROBLEMS = (
    *("reward", "reward_deadline", "samples", "pass_at", "max_new_tokens", "stop"),
    *("prompt_field", "answer_field", "prompt_template", "preferences"),
)
MODES = ("multiple_choice", "tasks", "problems")


def evaluate(options: argparse.Namespace) -> None:
    """Print or write the table, and the picture when it is wanted."""
    format = output_format(options.output, options.format)
    chosen = next((name for name in MODES if getattr(options, name)), None)
    mode = chosen and "--" + chosen.replace("_", "-")
    _refuse(options, ONLY_TEXT, mode)
    _refuse(options, ONLY_TASKS, None if options.tasks else mode or "--data")
    _refuse(options, ONLY_PROBLEMS, None if options.problems else mode or "--data")
    if mode is None and not options.data:
        _refuse(options, ("separator", "jsonl_field", "data_format"), "the held-out text")
    candidates = find_candidates(options.runs)
    for path in (options.plot, options.output, options.preferences):
        if path is not None:
            require_writable(path)
    keep_freed_memory()
    run = {"multiple_choice": _choices, "tasks": _tasks, "problems": _problems}.get(
        chosen or "", _text
    )
    report = run(options, candidates)
    if options.plot is not None:
        write_plot(report.panels, options.plot)
    write(rendered(report, format), options.output)
    if options.preferences is not None:  # last: there may be no pair, and the report stands
        write_preferences(options.preferences, report.preferences)
        print(f"{options.preferences}: {len(report.preferences):,} pairs", file=sys.stderr)


def _refuse(options: argparse.Namespace, names: Sequence[str], mode: str | None) -> None:
    """Raise UserError for an option that has no effect with a mode; None: all have one."""
    given = [name for name in names if getattr(options, name) is not None]
    if mode is not None and given:
        flag = "--" + given[0].replace("_", "-")
        raise UserError(f"{flag} has no effect with {mode}; leave it out")


def _scorers(
    options: argparse.Namespace, candidates: Sequence[Candidate]
) -> Iterator[tuple[str, Scorer]]:
    """Yield the name and the scorer of each run; one model at a time is in memory."""
    for candidate in candidates:
        yield (
            candidate.name,
            Scorer(_load(options, candidate), dtype=options.dtype, batch_size=options.batch_size),
        )


def _load(options: argparse.Namespace, candidate: Candidate) -> TrainedRun:
    return load(candidate.checkpoint, options.device)


def _text(options: argparse.Namespace, candidates: Sequence[Candidate]) -> Report:
    for candidate in candidates:  # before the long work
        longest = load_yaml(candidate.directory / CONFIG).model.context_length
        check_stride(options.stride, options.context_length, longest, candidate.name)
    corpora = _corpora(options, candidates)
    sizes = [corpus.count_bytes(not options.quiet) for corpus in corpora]
    found: dict[tuple[str, str], TextResult] = {}
    for name, scorer in _scorers(options, candidates):
        for corpus, size in zip(corpora, sizes, strict=True):
            with bar(f"{name} on {corpus.name}", size, not options.quiet) as shown:
                found[corpus.name, name] = evaluate_text(
                    scorer,
                    corpus.documents(),
                    stride=options.stride,
                    context_length=options.context_length,
                    advance=shown.update,
                )
    order = [(corpus.name, candidate.name) for corpus in corpora for candidate in candidates]
    return report_text({key: found[key] for key in order})


def _corpora(options: argparse.Namespace, candidates: Sequence[Candidate]) -> list[TextCorpus]:
    if not options.data:
        directories = [candidate.directory for candidate in candidates]
        return [common_held_out(directories, limit=options.limit)]
    names = _numbered([corpus_name(patterns) for patterns in options.data])
    return [
        from_paths(
            name,
            patterns,
            separator=options.separator,
            jsonl_field=options.jsonl_field or "text",
            format=options.data_format,
            limit=options.limit,
        )
        for name, patterns in zip(names, options.data, strict=True)
    ]


def _choices(options: argparse.Namespace, candidates: Sequence[Candidate]) -> Report:
    files: list[Path] = options.multiple_choice
    names = _numbered([file.name for file in files])
    questions = {
        name: read_questions(file, options.limit) for name, file in zip(names, files, strict=True)
    }
    found: dict[tuple[str, str], ChoiceResult] = {}
    for name, scorer in _scorers(options, candidates):
        for file, asked in questions.items():
            total = len(asked)
            with bar(f"{name} on {file}", total, not options.quiet, unit=" questions") as shown:
                found[file, name] = answer_questions(scorer, asked, advance=shown.update)
    order = [(file, candidate.name) for file in questions for candidate in candidates]
    return report_choices({key: found[key] for key in order})


def _tasks(options: argparse.Namespace, candidates: Sequence[Candidate]) -> Report:
    from lmlab.evaluation.harness import LmlabLM
    from lmlab.evaluation.tasks import Tasks, report_tasks

    tasks = Tasks(
        options.tasks,
        include_path=options.include_path,
        num_fewshot=options.num_fewshot,
        limit=options.limit,
    )
    rows = []
    for candidate in candidates:
        run = _load(options, candidate)
        model = LmlabLM(run, dtype=options.dtype, batch_size=options.batch_size)
        rows += tasks.run(candidate.name, model)
    return report_tasks(rows)


def _problems(options: argparse.Namespace, candidates: Sequence[Candidate]) -> Report:
    from lmlab.alignment.rewards import Grader, kept_stops
    from lmlab.alignment.rollouts import Decoding
    from lmlab.evaluation.problems import (
        ProblemResult,
        answer_problems,
        read_problem_file,
        report_problems,
        require_room,
    )

    if options.reward is None:
        raise UserError("--problems needs --reward, the name of what judges an answer")
    samples = options.samples or 0
    pass_at = options.pass_at or [1, *([samples] if samples > 1 else [])]
    if max(pass_at) > max(samples, 1):
        raise UserError(f"--pass-at {max(pass_at)} needs --samples {max(pass_at)} or more")
    if options.preferences is not None and samples < 2:
        raise UserError("--preferences needs --samples 2 or more: a right and a wrong one")
    template = options.prompt_template or "{prompt}"
    if "{prompt}" not in template:
        raise UserError("--prompt-template lacks {prompt}, which each prompt replaces")
    names = _numbered([file.name for file in options.problems])
    fields = options.prompt_field or "prompt", options.answer_field or "answer"
    files = {
        name: read_problem_file(file, *fields, template, options.limit)
        for name, file in zip(names, options.problems, strict=True)
    }
    decoding = Decoding(
        options.max_new_tokens or 256,
        tuple(options.stop or ()),
        kept_stops(options.reward),
        dtype=options.dtype,
    )
    for candidate in candidates:  # before the long work
        longest = load_yaml(candidate.directory / CONFIG).model.context_length
        tokenizer = load_tokenizer(candidate.directory)
        for problems in files.values():
            require_room(problems, tokenizer, longest, decoding.max_new_tokens, candidate.name)
    found: dict[tuple[str, str], ProblemResult] = {}
    with Grader(options.reward, options.reward_deadline) as grader:
        for candidate in candidates:
            run = _load(options, candidate)
            for name, problems in files.items():
                with bar(
                    f"{candidate.name} on {name}",
                    len(problems),
                    not options.quiet,
                    unit=" problems",
                ) as shown:
                    found[name, candidate.name] = answer_problems(
                        run, problems, grader, decoding, samples=samples, seed=0,
                        advance=shown.update,
                    )  # fmt: skip
    order = [(file, candidate.name) for file in files for candidate in candidates]
    return report_problems({key: found[key] for key in order}, pass_at)


def _numbered(names: Sequence[str]) -> list[str]:
    """Return the names, with a number at those that were there before."""
    return [
        name if name not in names[:index] else f"{name} ({names[: index + 1].count(name)})"
        for index, name in enumerate(names)
    ]
