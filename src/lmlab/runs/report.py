"""report.html: one page that shows a run, and works without a network."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmlab.files import atomic_write
from lmlab.runs.curves import smoothing_weight, wants_log_scale
from lmlab.runs.page import environment, plotly
from lmlab.runs.read import RunRecord, lineage_text, read_run
from lmlab.runs.rollouts import PAGE as ROLLOUT_PAGE
from lmlab.runs.rollouts import opposed, write_rollout_page
from lmlab.runs.run import LINEAGE, ROLLOUTS

_PLACE = ("step", "tokens", "seconds")
_LOSSES = ("train/loss", "val/loss", "val/bits_per_byte")
_TITLES = {
    "lr": "Learning rate",
    "grad_norm": "Gradient norm (before clipping)",
    "tokens_per_second": "Tokens per second",
    "mfu": "Model FLOPs utilization",
}
_FILES = (
    ROLLOUT_PAGE,
    "loss.png",
    "metrics.jsonl",
    "result.json",
    "config.yaml",
    "account.json",
    "environment.json",
    LINEAGE,
)
_NOT_DRAWN = ("train/moe/load/",)  # a chart for each expert of each layer would bury the others


def write_report(run_dir: Path) -> Path:
    """Write `run_dir/report.html` (about 2 MB, nearly all of it plotly.js) and return its path.

    A run with rollouts gets `rollouts.html` beside it, to which the report links.
    """
    run, path = read_run(run_dir), run_dir / "report.html"
    write_rollout_page(run)
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            run=run,
            headline=_headline(run),
            lineage=lineage_text(run.lineage),
            opposed=opposed(run),
            rollouts=ROLLOUT_PAGE if (run_dir / ROLLOUT_PAGE).exists() else None,
            curves=_curves(run),
            validation=[row for row in run.rows if "val/loss" in row],
            losses_at={row["step"]: row["val/loss"] for row in run.rows if "val/loss" in row},
            config=_groups(run.config),
            environment=_groups(run.environment),
            account=_groups({k: v for k, v in run.account.items() if k != "tree"}),
            tree=run.account.get("tree"),
            files=[
                name
                for name in (*_FILES, ROLLOUTS, "samples.txt", "checkpoints")
                if (run_dir / name).exists()
            ],
            directory=run_dir.resolve(),
            plotly=plotly(),
        )
    )
    with atomic_write(path) as file:
        file.write(page)
    return path


def _headline(run: RunRecord) -> dict[str, float | None]:
    """Return the numbers at the top of the page: of the result, or the last ones logged."""
    numbers: dict[str, float | None] = {}
    logged = {"val_loss": "val/loss", "val_bits_per_byte": "val/bits_per_byte"}
    for name in (
        "val_loss",
        "val_bits_per_byte",
        "tokens_per_second",
        "tokens",
        "seconds",
        "flops",
    ):
        series = run.series(logged.get(name, name))[1]
        numbers[name] = run.result.get(name, series[-1] if series else None)
    numbers["parameters"] = (run.environment | run.result).get("parameters")
    numbers["xz"] = run.xz_bits_per_byte()
    accuracies = run.series("val/accuracy")[1]
    numbers["accuracy"] = accuracies[-1] if accuracies else None
    numbers["best_accuracy"] = max(accuracies) if accuracies else None
    return {
        name: float(value) if isinstance(value, int | float) and math.isfinite(value) else None
        for name, value in numbers.items()
    }


def _curves(run: RunRecord) -> dict[str, Any]:
    """Return the data of the charts: a column for each key, null where nothing was logged."""
    keys = dict.fromkeys(key for row in run.rows for key in row)
    columns = {
        key: [value if math.isfinite(value := row.get(key, math.nan)) else None for row in run.rows]
        for key in keys
    }
    columns = {key: column for key, column in columns.items() if any(v is not None for v in column)}
    others = [
        key for key in columns if key not in (*_PLACE, *_LOSSES) and not key.startswith(_NOT_DRAWN)
    ]
    bad = run.diverged_at()
    return {
        "columns": columns,
        "charts": [[key, _TITLES.get(key, key)] for key in sorted(others, key=_chart_order)],
        "smoothing": smoothing_weight(len(run.series("train/loss")[0])),
        "log_loss": wants_log_scale(run.losses()),
        "bits_per_byte_over_loss": run.bits_per_byte_over_loss(),
        "xz_bits_per_byte": run.xz_bits_per_byte(),
        "diverged_at": {key: bad[key] for key in _PLACE if key in bad} if bad else None,
    }


def _chart_order(key: str) -> tuple[int, str]:
    known = list(_TITLES)
    return (known.index(key) if key in known else len(known), key)


def _groups(mapping: dict[str, Any]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Return the leaves of a nested mapping by top-level key, as (prefix, name, value)."""
    top = {key: value for key, value in mapping.items() if not (isinstance(value, dict) and value)}
    groups = [("", list(_leaves(top, "")))] if top else []
    groups += [(key, list(_leaves(mapping[key], f"{key}."))) for key in mapping if key not in top]
    return groups


def _leaves(mapping: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    for key, value in mapping.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            shown = (
                value
                if isinstance(value, str)
                else json.dumps(value, ensure_ascii=False, default=str)
            )
            yield prefix, str(key), shown
