"""What `lmlab evaluate` does."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from lmlab.config import load_yaml
from lmlab.errors import UserError
from lmlab.evaluation.candidates import Candidate, find_candidates
from lmlab.evaluation.corpora import TextCorpus, common_held_out, corpus_name, from_paths
from lmlab.evaluation.multiple_choice import ChoiceResult, answer_questions
from lmlab.evaluation.output import output_format, rendered, write
from lmlab.evaluation.plot import write_plot
from lmlab.evaluation.questions import read_questions
from lmlab.evaluation.results import Report, report_choices, report_text
from lmlab.evaluation.scorer import Scorer
from lmlab.evaluation.text import TextResult, evaluate_text
from lmlab.evaluation.windows import check_stride
from lmlab.io.progress import bar
from lmlab.layout import CONFIG
from lmlab.loading import TrainedRun, load
from lmlab.training.device import keep_freed_memory

ONLY_TEXT = ("stride", "context_length", "separator", "jsonl_field", "data_format")
ONLY_TASKS = ("include_path", "num_fewshot")


def evaluate(options: argparse.Namespace) -> None:
    """Print or write the table, and the picture when it is wanted."""
    format = output_format(options.output, options.format)
    if options.plot is not None and options.plot.suffix.lower() != ".png":
        raise UserError(f"--plot {options.plot}: the name must end in .png")
    mode = "--multiple-choice" if options.multiple_choice else "--tasks" if options.tasks else None
    _refuse(options, ONLY_TEXT, mode)
    _refuse(options, ONLY_TASKS, None if options.tasks else mode or "--data")
    if mode is None and not options.data:
        _refuse(options, ("separator", "jsonl_field", "data_format"), "the held-out text")
    candidates = find_candidates(options.runs)
    keep_freed_memory()
    run = {"--multiple-choice": _choices, "--tasks": _tasks}.get(mode or "", _text)
    report = run(options, candidates)
    if options.plot is not None:
        write_plot(report.panels, options.plot)
    write(rendered(report, format), options.output)


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


def _numbered(names: Sequence[str]) -> list[str]:
    """Return the names, with a number at those that were there before."""
    return [
        name if name not in names[:index] else f"{name} ({names[: index + 1].count(name)})"
        for index, name in enumerate(names)
    ]
