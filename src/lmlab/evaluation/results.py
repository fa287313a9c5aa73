"""Results as rows of a table, and as panels of a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lmlab.evaluation.estimate import Estimate
from lmlab.evaluation.multiple_choice import SCORINGS, ChoiceResult
from lmlab.evaluation.plot import Panel
from lmlab.evaluation.text import TextResult

Row = dict[str, str | int | float | None]
SCORING_TITLES = {
    "sum": "sum",
    "per_token": "per token",
    "per_byte": "per byte",
    "unconditional": "unconditional",
}
Named = Mapping[tuple[str, str], TextResult]
"""(corpus, run) -> result; the first run of a corpus is what the others are compared with."""


class Preference(NamedTuple):
    """A right and a wrong answer to a problem, as preference training reads them."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Report:
    """What is written: rows for programs, a table for people, panels to draw."""

    rows: Sequence[Row]
    header: Sequence[str]
    cells: Sequence[Sequence[str]]
    text_columns: int
    """Columns at the left that hold text."""
    notes: Sequence[str]
    panels: Sequence[Panel]
    preferences: Sequence[Preference] = ()


def report_text(results: Named) -> Report:
    """Return the report on the loss of runs on corpora."""
    rows, cells = [], []
    panels: dict[str, list[tuple[str, Estimate]]] = {}
    first: dict[str, tuple[str, TextResult]] = {}
    several = len({run for _, run in results}) > 1
    for (corpus, run), result in results.items():
        base_name, base = first.setdefault(corpus, (run, result))
        bits, loss = result.bits_per_byte, result.loss
        difference = None if base_name == run else result.minus(base)
        panels.setdefault(corpus, []).append((run, bits))
        row: Row = {"corpus": corpus, "run": run}
        row |= numbers("bits_per_byte", bits) | numbers("loss", loss)
        row |= {"perplexity_per_token": result.perplexity}
        row |= {"perplexity_per_byte": result.byte_perplexity}
        row |= numbers("bits_per_byte_difference", difference)
        row |= {
            "documents": len(result.nats),
            "tokens": int(result.tokens.sum()),
            "bytes": int(result.bytes.sum()),
        }
        rows.append(row)
        cells.append(
            [
                corpus,
                run,
                _shown(bits),
                *([_shown(difference, "+") if difference else ""] if several else []),
                f"{result.byte_perplexity:.4g}",
                f"{loss.value:.4f}",
                f"{result.perplexity:,.4g}",
                *(f"{row[key]:,}" for key in ("tokens", "bytes", "documents")),
            ]
        )
    head = ["corpus", "run", "bits per byte"]
    baseline = next(iter(results))[1]
    head += [f"minus {baseline}"] if several else []
    head += ["perplexity per byte", "loss per token", "perplexity per token"]
    head += ["tokens", "bytes", "documents"]
    drawn = [Panel(corpus, "bits per byte", points) for corpus, points in panels.items()]
    return Report(rows, head, cells, 2, _text_notes(results), drawn)


def _text_notes(results: Named) -> list[str]:
    notes = []
    if any(result.bits_per_byte.error is not None for result in results.values()):
        notes.append("±: 95 % confidence interval over documents; of a difference, paired.")
    if any(result.bits_per_byte.error is None for result in results.values()):
        notes.append("No interval for a corpus of one document; --separator divides a file.")
    tokens: dict[str, set[int]] = {}
    for (corpus, _), result in results.items():
        tokens.setdefault(corpus, set()).add(int(result.tokens.sum()))
    if any(len(counts) > 1 for counts in tokens.values()):
        notes.append("Figures per token do not compare between tokenizers; those per byte do.")
    return notes


def report_choices(results: Mapping[tuple[str, str], ChoiceResult]) -> Report:
    """Return the report on the accuracy of runs, (file, run) -> result."""
    rows: list[Row] = []
    cells, notes = [], []
    points: dict[tuple[str, str], list[tuple[str, Estimate]]] = {}
    first: dict[str, tuple[str, ChoiceResult]] = {}
    for (file, run), result in results.items():
        base_name, base = first.setdefault(file, (run, result))
        count = result.correct.shape[1]
        line = [file, run]
        for scoring in SCORINGS:
            accuracy = result.accuracy(scoring)
            difference = None if base_name == run else result.minus(base, scoring)
            points.setdefault((file, scoring), []).append((run, accuracy))
            row: Row = {"file": file, "run": run, "scoring": scoring}
            row |= numbers("accuracy", accuracy) | numbers("accuracy_difference", difference)
            rows.append(row | {"chance": result.chance, "questions": count})
            error = "" if accuracy.error is None else f" ± {accuracy.error:.3f}"
            line.append(f"{accuracy.value:.3f}{error}")
        cells.append([*line, f"{result.chance:.3f}", f"{count:,}"])
        if result.cropped:
            notes.append(
                f"{run}: {result.cropped:,} of {count:,} questions in {file} are longer than its "
                "context and were cropped from the left."
            )
    head = ["file", "run", *SCORING_TITLES.values(), "chance", "questions"]
    panels = [
        Panel(
            f"{file}, {SCORING_TITLES[scoring]}",
            "accuracy",
            found,
            reference=(first[file][1].chance, "chance"),
            limits=(-0.05, 1.05),  # accuracies lie between 0 and 1
        )
        for (file, scoring), found in points.items()
    ]
    return Report(rows, head, cells, 2, ["±: standard error over questions.", *notes], panels)


def numbers(name: str, estimate: Estimate | None) -> Row:
    """Return an estimate under four keys; None: empty ones."""
    values = (
        (estimate.value, estimate.error, estimate.low, estimate.high) if estimate else [None] * 4
    )
    suffixes = ("", "_standard_error", "_low", "_high")
    return {f"{name}{suffix}": value for suffix, value in zip(suffixes, values, strict=True)}


def _shown(estimate: Estimate, sign: str = "") -> str:
    half = estimate.half_width
    return f"{estimate.value:{sign}.4f}" + ("" if half is None else f" ± {half:.4f}")
