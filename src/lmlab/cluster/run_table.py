"""The table of runs that `lmlab runs` prints."""

import os
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from lmlab.cluster.records import read_record
from lmlab.cluster.run_progress import Progress, progress_of
from lmlab.cluster.run_state import State, state_of
from lmlab.runs.read import lineage_text
from lmlab.runs.run import LINEAGE
from lmlab.text import aligned_table, duration, shortened

COLUMNS = ("state", "step", "loss", "val loss", "tokens/s", "left", "from", "run")
DISPENSABLE = ("tokens/s", "loss", "from", "left", "val loss")
"""Columns in the order in which they are left out when the terminal is too narrow."""
NAME = 24
"""Characters of the runs' names that a column is left out for."""


def table(runs: list[Path], root: Path, width: int | None = None) -> tuple[str, bool]:
    """Return the table of the runs, and whether any of them is queued or running.

    It has a section for each folder, and fits `width` characters; None: as many as it needs.
    """
    states = state_of(runs)
    rows = {path: _row(path, states[path]) for path in runs}
    columns = _columns(list(rows.values()), width)
    cells = [[row[name] for name in columns] for row in rows.values()]
    if width is not None:
        taken = max(len(line) for line in aligned_table([[*row[:-1], ""] for row in cells]))
        cells = [[*row[:-1], shortened(row[-1], max(NAME, width - taken - 2))] for row in cells]
    head, *lines = aligned_table([columns, *cells])
    shown = dict(zip(runs, lines, strict=True))
    text = [head]
    for folder, paths in groupby(runs, key=lambda path: path.parent):
        if folder != root and runs != [root]:
            text += ["", f"{os.path.relpath(folder, root)}/"]
        for path in paths:
            text += [shown[path], *_detail(states[path], width)]
    text += ["", summary(states)]
    return "\n".join(text), any(state.active for state in states.values())


def summary(states: Mapping[Path, State]) -> str:
    """Return how many runs are in which state, in one line."""
    counts = Counter(state.name for state in states.values())
    noun = "run" if len(states) == 1 else "runs"
    return f"{len(states)} {noun}: " + ", ".join(f"{n} {name}" for name, n in counts.most_common())


def _columns(rows: Sequence[Mapping[str, str]], width: int | None) -> list[str]:
    """Return the columns with content that fit."""
    columns = [name for name in COLUMNS if name != "from" or any(row["from"] for row in rows)]

    def needed() -> int:
        longest = [max(len(name), *(len(row[name]) for row in rows)) for name in columns[:-1]]
        names = max(len(row["run"]) for row in rows)
        return sum(longest) + 2 * len(longest) + names

    for name in DISPENSABLE:
        if width is not None and needed() > width and name in columns:
            columns.remove(name)
    return columns


def _detail(state: State, width: int | None) -> list[str]:
    """Return the reason of a state, below its line; not the long command of a stopped run."""
    if not state.detail or state.name == "stopped":
        return []
    indent = "    "
    if width is None:
        return [indent + state.detail]
    return textwrap.wrap(state.detail, width, initial_indent=indent, subsequent_indent=indent)


def _row(path: Path, state: State) -> dict[str, str]:
    progress = Progress() if state.name == "queued" else progress_of(path)
    left = progress.seconds_left if state.name == "running" else None
    rate = progress.tokens_per_second
    return {
        "state": state.name,
        "step": _steps(progress),
        "loss": _loss(progress.train_loss),
        "val loss": _loss(progress.val_loss),
        "tokens/s": "" if rate is None else f"{rate:,.0f}",
        "left": "" if left is None else duration(left),
        "from": lineage_text(read_record(path / LINEAGE)),
        "run": path.name,
    }


def _steps(progress: Progress) -> str:
    if progress.step is None:
        return ""
    return f"{progress.step:,}" + (f"/{progress.steps:,}" if progress.steps else "")


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
