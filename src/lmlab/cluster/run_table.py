"""Runs and what has become of them, as lines of text."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lmlab.cluster.run_progress import Progress, progress_of
from lmlab.cluster.run_state import ACTIVE, State, state_of

HEAD = ("state", "step", "loss", "val loss", "tokens/s", "left", "run")


def table(runs: list[Path], root: Path) -> tuple[str, bool]:
    """Return the table of the runs, and whether any of them is still going to change."""
    states = state_of(runs)
    rows = [_row(path, states[path], root) for path in runs]
    widths = [max(len(row[i]) for row in [HEAD, *rows]) for i in range(len(HEAD) - 1)]
    lines = []
    for row in [HEAD, *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:], strict=True)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    for path, state in states.items():
        if state.detail and state.name != "stopped":  # that one's is a command line, and long
            lines[1 + runs.index(path)] += f": {state.detail}"
    lines += ["", summary(states)]
    return "\n".join(lines), any(state.name in ACTIVE for state in states.values())


def summary(states: Mapping[Path, State]) -> str:
    """Return how many runs are in which state, in one line."""
    counts = Counter(state.name for state in states.values())
    noun = "run" if len(states) == 1 else "runs"
    return f"{len(states)} {noun}: " + ", ".join(f"{n} {name}" for name, n in counts.most_common())


def _row(path: Path, state: State, root: Path) -> tuple[str, ...]:
    progress = Progress() if state.name == "queued" else progress_of(path)
    left = progress.seconds_left if state.name == "running" else None
    rate = progress.tokens_per_second
    return (
        state.name,
        _steps(progress),
        _loss(progress.train_loss),
        _loss(progress.val_loss),
        "" if rate is None else f"{rate:,.0f}",
        "" if left is None else duration(left),
        os.path.relpath(path, root) if path != root else path.name,
    )


def _steps(progress: Progress) -> str:
    if progress.step is None:
        return ""
    return f"{progress.step:,}" + (f"/{progress.steps:,}" if progress.steps else "")


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def duration(seconds: float) -> str:
    """Return a time as people say it: 40 s, 12 min, 3 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
