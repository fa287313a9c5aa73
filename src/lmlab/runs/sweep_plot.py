"""The result of a sweep as a picture: each seed a dot, each setting its mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmlab.figures import COLORS, INK, STYLE
from lmlab.files import atomic_write
from lmlab.runs.collect import Setting, Settings, Sweep, describe
from lmlab.runs.curves import wants_log_scale
from lmlab.runs.names import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vP*X"
FEWEST = 3
"""Numbers an axis must have to be drawn as one; fewer are told apart by color."""


def write_sweep_plot(sweep: Sweep, path: Path) -> Path:
    """Draw the metric against the swept number, or a row for each setting, and return `path`."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    axis = numeric_axis(sweep)
    height = 4.2 if axis else 1.2 + 0.34 * len(sweep.settings)
    with rc_context(STYLE), atomic_write(path, "wb") as file:
        figure = Figure(figsize=(7.6, height), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        panel = figure.subplots()
        if axis:
            _lines(panel, sweep, axis)
        else:
            _rows(panel, sweep)
        figure.savefig(file, format="png", metadata={"Title": f"{sweep.directory.name}"})
    return path


def numeric_axis(sweep: Sweep) -> str | None:
    """Return the axis with the most numbers, if it has at least three and nothing else."""
    counts = {}
    for axis in sweep.axes:
        values = {dict(setting.settings)[axis] for setting in sweep.settings}
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            counts[axis] = len(values)
    best = max(counts, key=lambda axis: counts[axis], default=None)
    return best if best and counts[best] >= FEWEST else None


def _lines(panel: Axes, sweep: Sweep, axis: str) -> None:
    """A line through the means for each combination of the other axes."""
    series: dict[str, list[Setting]] = {}
    for setting in sweep.settings:
        series.setdefault(describe(_without(setting.settings, axis)), []).append(setting)
    for index, (name, settings) in enumerate(series.items()):
        color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
        label = name if len(series) > 1 else None
        xs = [dict(setting.settings)[axis] for setting in settings]
        means = [setting.estimate.mean if setting.estimate.n else math.nan for setting in settings]
        panel.plot(xs, means, marker=marker, color=color, linewidth=1.6, label=label)
        for x, setting in zip(xs, settings, strict=True):
            _seeds(panel, [x] * setting.estimate.n, setting.values, color)
            if setting.diverged:  # at the upper edge: there is no loss to draw it at
                where = {"transform": panel.get_xaxis_transform(), "clip_on": False}
                panel.plot([x], [1.0], "x", color=color, markersize=9, **where)  # type: ignore[arg-type]
    numbers = {dict(setting.settings)[axis] for setting in sweep.settings}
    positive = sorted(number for number in numbers if number > 0)
    if positive and positive[-1] >= 5 * positive[0]:
        linear = {"linthresh": positive[0]} if len(positive) < len(numbers) else {}
        panel.set_xscale("symlog" if linear else "log", **linear)
    panel.set_xticks(sorted(numbers), [f"{number:g}" for number in sorted(numbers)])
    panel.minorticks_off()
    if wants_log_scale([value for setting in sweep.settings for value in setting.values]):
        panel.set_yscale("log")
    panel.set(xlabel=short(axis), ylabel=sweep.metric_name)
    if len(series) > 1:
        panel.legend(edgecolor="none")
    if any(setting.diverged for setting in sweep.settings):
        panel.set_title("× at the top: diverged", loc="right", fontsize=9, color=INK)


def _rows(panel: Axes, sweep: Sweep) -> None:
    """A row for each setting, the best at the top, those that diverged below the others."""

    def rank(setting: Setting) -> tuple[bool, float]:
        mean = setting.estimate.mean
        return setting.diverged > 0, sweep.sign * mean if setting.estimate.n else math.inf

    settings = sorted(sweep.settings, key=rank)
    for row, setting in enumerate(settings):
        _seeds(panel, setting.values, [row] * setting.estimate.n, COLORS[0])
        if setting.estimate.n:
            panel.plot(setting.estimate.mean, row, "D", color=COLORS[1], markersize=6)
    names = [
        describe(setting.settings) + (" (diverged)" if setting.diverged else "")
        for setting in settings
    ]
    panel.set_yticks(range(len(names)), names)
    panel.invert_yaxis()
    panel.set_xlabel(f"{sweep.metric_name} (dots: seeds, diamond: their mean)")


def _seeds(panel: Axes, xs: Sequence[Any], ys: Sequence[Any], color: str) -> None:
    panel.plot(xs, ys, "o", color=color, markersize=4, alpha=0.45, markeredgewidth=0)


def _without(settings: Settings, axis: str) -> Settings:
    return tuple((key, value) for key, value in settings if key != axis)
