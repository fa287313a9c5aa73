"""Values of runs with their intervals as a picture: a panel for each corpus or scoring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lmlab.evaluation.estimate import Estimate, Interval
from lmlab.figures import COLORS, FAINT, INK, STYLE
from lmlab.files import atomic_write
from lmlab.text import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 4
"""Panels beside one another at most."""
LONGEST = 40
"""Characters of a name."""


@dataclass(frozen=True)
class Panel:
    """A value of each run."""

    title: str
    label: str
    """Of the axis."""
    points: Sequence[tuple[str, Estimate | Interval]]
    """Run and value, from the top."""
    reference: tuple[float, str] | None = None
    """A value to draw a line at, and its name."""
    limits: tuple[float, float] | None = None
    """Ends of the axis; None: they fit the values."""


def write_plot(panels: Sequence[Panel], path: Path) -> None:
    """Draw the panels into a PNG file."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    names = list(dict.fromkeys(name for panel in panels for name, _ in panel.points))
    height = lines * (1.25 + 0.34 * len(names))
    with rc_context(STYLE), atomic_write(path, "wb") as file:
        figure = Figure(figsize=(2.4 + 3.2 * columns, height), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False).flatten()
        for axes, panel in zip(grid, panels, strict=False):
            _draw(axes, panel, names)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        labels = [shortened(name, LONGEST) for name in names]
        for text in grid[0].set_yticks(range(len(names)), labels):
            text.label1.set_parse_math(False)  # a dollar sign in a name is a dollar sign
        grid[0].set_ylim(len(names) - 0.5, -0.5)
        figure.savefig(file, format="png", metadata={"Title": panels[0].label})


def _draw(axes: Axes, panel: Panel, names: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    for name, estimate in panel.points:
        row = names.index(name)
        low, high = estimate.low, estimate.high
        color = COLORS[row % len(COLORS)]
        axes.errorbar(
            estimate.value,
            row,
            xerr=None
            if low is None or high is None
            else [[estimate.value - low], [high - estimate.value]],
            fmt="o",
            color=color,
            markersize=5.5,
            elinewidth=1.8,
            capsize=3.5,
        )
        axes.annotate(
            f"{estimate.value:.3f}",
            (estimate.value, row),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            color=color,
        )
    if panel.reference is not None:
        value, name = panel.reference
        axes.axvline(value, color=FAINT, linestyle="--", linewidth=1.1)
        axes.annotate(
            name,
            (value, 0.02),
            xycoords=axes.get_xaxis_transform(),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=8.5,
            color=INK,
        )
    axes.xaxis.set_major_locator(MaxNLocator(4, min_n_ticks=2))
    axes.margins(x=0.12)
    if panel.limits is not None:
        axes.set_xlim(panel.limits)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(panel.label)
    title = axes.set_title(shortened(panel.title, LONGEST), loc="left", fontsize=10.5)
    title.set_parse_math(False)
