"""report.html: one page that shows a run, and works without a network."""

import base64
import gzip
import json
import math
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from lmlab.files import atomic_write
from lmlab.runs.curves import smoothing_weight, wants_log_scale
from lmlab.runs.read import Run, read_run

_TEMPLATES = Path(__file__).parent / "templates"
_PLACE = ("step", "tokens", "seconds")
_LOSSES = ("train/loss", "val/loss", "val/bits_per_byte")
_TITLES = {
    "lr": "Learning rate",
    "grad_norm": "Gradient norm (before clipping)",
    "tokens_per_second": "Tokens per second",
    "mfu": "Model FLOPs utilization",
}
_FILES = (
    "loss.png",
    "metrics.jsonl",
    "result.json",
    "config.yaml",
    "account.json",
    "environment.json",
)
_NOT_DRAWN = ("train/moe/load/",)  # a chart for each expert of each layer would bury the others
# What a browser drops, what acts on the text around it, what UTF-8 cannot hold.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def write_report(run_dir: Path) -> Path:
    """Write `run_dir/report.html` (about 2 MB, nearly all of it plotly.js) and return its path."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    run, path = read_run(run_dir), run_dir / "report.html"
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": _visible, "count": _count, "duration": _duration}
    page = environment.get_template("report.html.j2").render(
        run=run,
        headline=_headline(run),
        curves=_curves(run),
        validation=[row for row in run.rows if "val/loss" in row],
        losses_at={row["step"]: row["val/loss"] for row in run.rows if "val/loss" in row},
        config=_groups(run.config),
        environment=_groups(run.environment),
        account=_groups({k: v for k, v in run.account.items() if k != "tree"}),
        tree=run.account.get("tree"),
        files=[
            name for name in (*_FILES, "samples.txt", "checkpoints") if (run_dir / name).exists()
        ],
        directory=run_dir.resolve(),
        plotly=_plotly(),
    )
    with atomic_write(path) as file:
        file.write(page)
    return path


@cache
def _plotly() -> str:
    """Return plotly.js, gzipped and in base64: 2.0 MB in place of 4.8."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _headline(run: Run) -> dict[str, float | None]:
    """Return the numbers that the page begins with: the result's, or as far as the run got."""
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
    return {
        name: float(value) if isinstance(value, int | float) and math.isfinite(value) else None
        for name, value in numbers.items()
    }


def _curves(run: Run) -> dict[str, Any]:
    """Return the data of the charts: a column a key, null where nothing was logged."""
    keys = dict.fromkeys(key for row in run.rows for key in row)
    columns = {
        key: [value if math.isfinite(value := row.get(key, math.nan)) else None for row in run.rows]
        for key in keys
    }
    columns = {key: column for key, column in columns.items() if any(v is not None for v in column)}
    others = [
        key
        for key in columns
        if key not in (*_PLACE, *_LOSSES) and not key.startswith(_NOT_DRAWN)
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


def _visible(text: str) -> str:
    """Show control characters as what Unicode has for them, instead of letting them act."""

    def picture(match: re.Match[str]) -> str:
        code = ord(match[0])
        if code < 0x20:
            return chr(0x2400 + code)
        return "\u2421" if code == 0x7F else f"\\u{code:04x}"

    return _CONTROL.sub(picture, text)


def _count(value: float | None) -> str:
    """Return a number in three or four digits: 2.14 M."""
    if value is None:
        return "–"
    for size, unit in (
        (1e21, "Z"),
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e4, "k"),
    ):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}\u202f{unit}"
    return f"{value:,.0f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours}\u202fh {minutes:02}\u202fmin"
    return f"{minutes}\u202fmin {left:02}\u202fs" if minutes else f"{seconds:.3g}\u202fs"
