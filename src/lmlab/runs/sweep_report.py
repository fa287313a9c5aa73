"""sweep.html: one page that answers what a sweep asked, and works without a network."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lmlab.files import atomic_write
from lmlab.runs.collect import Row, Sweep, collect, describe, result_of
from lmlab.runs.curves import wants_log_scale
from lmlab.runs.names import short, show
from lmlab.runs.page import duration, environment, plotly
from lmlab.runs.tables import result_columns
from lmlab.runs.verdict import judge

POINTS = 300
"""Of a curve on the page; of a longer one every n-th."""
PLACES = ("step", "tokens", "seconds")


def write_sweep_report(directory: Path, metric: str | None = None) -> Path:
    """Write `directory/sweep.html` and return its path; raises UserError when there are no runs."""
    sweep, path = collect(directory, metric), directory / "sweep.html"
    verdict = judge(sweep)
    names = [str(row.run.config.get("name") or "") for row in sweep.rows]
    page = (
        environment()
        .get_template("sweep.html.j2")
        .render(
            sweep=sweep,
            verdict=verdict,
            metric=sweep.metric_name,
            title=next(filter(None, names), directory.resolve().name),
            counts=_counts(sweep),
            axes=[short(axis) for axis in sweep.axes],
            comparisons={id(c.setting): c for c in verdict.comparisons},
            data=_data(sweep),
            rows=[_table_row(row, sweep) for row in sweep.rows],
            columns=[name.replace("_", " ") for name, _ in result_columns(sweep).values()],
            directory=directory.resolve(),
            plotly=plotly(),
            show=show,
            id=id,
            duration=duration,
        )
    )
    with atomic_write(path) as file:
        file.write(page)
    return path


def _counts(sweep: Sweep) -> str:
    counts: dict[str, int] = {}
    for row in sweep.rows:
        counts[row.run.status] = counts.get(row.run.status, 0) + 1
    seeds = {show(row.seed) for row in sweep.rows}
    parts = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{len(sweep.settings)} settings, {len(seeds)} seeds, {len(sweep.rows)} runs: {parts}"


def _table_row(row: Row, sweep: Sweep) -> dict[str, Any]:
    where = os.path.relpath(row.run.directory, sweep.directory)
    report = row.run.directory / "report.html"
    return {
        "settings": [show(value) for _, value in row.settings],
        "seed": show(row.seed),
        "status": row.run.status,
        "numbers": [
            (result_of(row.run, key), places) for key, (_, places) in result_columns(sweep).items()
        ],
        "seconds": row.run.result.get("seconds"),
        "href": quote(f"{where}/report.html" if report.exists() else f"{where}/"),
        "name": where,
    }


def _data(sweep: Sweep) -> dict[str, Any]:
    """Return what the charts show."""
    index = {describe(setting.settings): i for i, setting in enumerate(sweep.settings)}
    runs = [
        {
            "setting": index[describe(row.settings)],
            "seed": show(row.seed),
            "status": "diverged" if row.diverged else row.run.status,
            "metric": row.metric,
            "train": _curve(row, "train/loss"),
            "val": _curve(row, "val/loss"),
        }
        for row in sweep.rows
    ]
    losses = [loss for row in sweep.rows for loss in row.run.series("val/loss")[1]]
    return {
        "metric": sweep.metric_name,
        "settings": [describe(setting.settings) for setting in sweep.settings],
        "values": [[value for _, value in setting.settings] for setting in sweep.settings],
        "axes": [short(axis) for axis in sweep.axes],
        "runs": runs,
        "log_loss": wants_log_scale(losses),
    }


def _curve(row: Row, key: str) -> dict[str, list[float | None]]:
    rows = [r for r in row.run.rows if math.isfinite(r.get(key, math.nan))]
    rows = _thinned(rows)
    return {name: [_finite(r.get(name)) for r in rows] for name in PLACES} | {
        "loss": [r[key] for r in rows]
    }


def _thinned(rows: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Keep every n-th row and the last."""
    every = max(1, math.ceil(len(rows) / POINTS))
    return [row for i, row in enumerate(rows) if i % every == 0 or i == len(rows) - 1]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
