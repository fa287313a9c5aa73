"""The results of a sweep as tables: csv for programs, markdown for people."""

import csv
import io
import os
from typing import Any

from lmlab.runs.collect import RESULTS, SEED, Row, Sweep, result_of
from lmlab.runs.names import short, show
from lmlab.runs.verdict import judge
from lmlab.text import markdown_table

COLUMNS = {
    "val_loss": ("val_loss", 4),
    "val_bits_per_byte": ("bits per byte", 4),
    "steps": ("steps", 0),
    "tokens_per_second": ("tokens/s", 0),
}
"""Result of a run that tables show -> head of its column, decimal places."""


def result_columns(sweep: Sweep) -> dict[str, tuple[str, int]]:
    """Return the columns of results of a run: the metric of the sweep is one of them."""
    return COLUMNS if sweep.metric in COLUMNS else {sweep.metric: (sweep.metric, 4), **COLUMNS}


def to_csv(sweep: Sweep) -> str:
    """Return one line a run, with mean, sd and 95 % interval of its setting's seeds at the end."""
    statistics = ("metric", "n", "mean", "sd", "ci_low", "ci_high")
    keys = list(dict.fromkeys([*RESULTS, sweep.metric]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "status", *sweep.axes, SEED, *keys, *statistics])
    for setting in sweep.settings:
        e = setting.estimate
        numbers = [e.n, e.mean, e.sd, e.low, e.high] if e.n else [0, None, None, None, None]
        for row in setting.rows:
            results = [result_of(row.run, key) for key in keys]
            values = [show(value) for _, value in row.settings]
            name = _name(row, sweep)
            cells = [name, row.run.status, *values, row.seed, *results, sweep.metric, *numbers]
            writer.writerow(cells)
    return text.getvalue()


def to_markdown(sweep: Sweep) -> str:
    """Return a table of the settings with mean, sd and 95 % interval, the verdict, all runs."""
    names = [short(axis) for axis in sweep.axes]
    rows = []
    for setting in sweep.settings:
        e = setting.estimate
        interval = f"{e.low:.4f} to {e.high:.4f}" if e.low is not None else "–"
        cells = [show(value) for _, value in setting.settings]
        cells += [str(e.n), f"{e.mean:.4f}" if e.n else "–"]
        cells += [f"{e.sd:.4f}" if e.sd is not None else "–", interval]
        cells.append(f"{setting.diverged} of {len(setting.rows)}" if setting.diverged else "")
        rows.append(cells)
    head = [*names, "seeds", sweep.metric, "sd", "95 % interval", "diverged"]
    settings = markdown_table(head, rows, text=len(names))
    verdict = judge(sweep)
    headline = f"Best: {verdict.headline}." if verdict.best else verdict.headline
    sentences = [headline, verdict.support, verdict.noise, sweep.confounded]
    best = " ".join(filter(None, sentences))
    head = ["run", *names, SEED, "status", *(name for name, _ in result_columns(sweep).values())]
    runs = markdown_table(head, [_run_cells(row, sweep) for row in sweep.rows], text=len(names) + 3)
    return f"{settings}\n\n{best}\n\n{runs}\n"


def _run_cells(row: Row, sweep: Sweep) -> list[str]:
    cells = [f"`{_name(row, sweep)}`", *(show(value) for _, value in row.settings)]
    cells += [show(row.seed), row.run.status]
    for key, (_, places) in result_columns(sweep).items():
        cells.append(_number(result_of(row.run, key), f",.{places}f"))
    return cells


def _name(row: Row, sweep: Sweep) -> str:
    return os.path.relpath(row.run.directory, sweep.directory)


def _number(value: Any, format_: str) -> str:
    return format(value, format_) if isinstance(value, int | float) else "–"
