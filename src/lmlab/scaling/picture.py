"""A picture of a table's laws."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmlab.figures import BLUE, INK, ORANGE, picture
from lmlab.scaling.report import Report

if TYPE_CHECKING:
    from matplotlib.axis import Axis

FEW = 200
"""Highest to lowest value of an axis with few powers of ten."""


def write_picture(report: Report, path: Path) -> None:
    """Draw the IsoFLOP profiles, the best sizes and the frontier as a PNG."""
    from matplotlib import colormaps

    runs = report.runs
    exponent = float(np.polyfit(np.log(report.sizes.x), np.log(report.sizes.y), 1)[0])
    title = f"{len(runs)} runs, best size N ~ C^{exponent:.2f}"
    with picture(path, title, (12.6, 4.0), panels=3) as (profiles, sizes, frontier):
        low, high = np.log(runs.flops.min()), np.log(runs.flops.max())
        shades = colormaps["viridis"]((np.log(runs.flops) - low) / max(high - low, 1e-9) * 0.9)
        profiles.scatter(runs.parameters, runs.loss, 12, shades, zorder=3)
        for flops in report.budgets:
            curve = report.law_curve(flops)
            shade = colormaps["viridis"]((np.log(flops) - low) / max(high - low, 1e-9) * 0.9)
            profiles.plot(*curve.T, color=shade, linewidth=1)
        budgets = np.array(report.budgets)
        best, _ = report.parametric.law.optimum(budgets, runs.cost)
        losses = report.parametric.law.best_loss(budgets, runs.cost)
        profiles.plot(best, losses, "D", color=ORANGE, markersize=4, label="optimum of the law")
        margin = 0.05 * (runs.loss.max() - runs.loss.min())
        profiles.set_ylim(runs.loss.min() - margin, runs.loss.max() + margin)
        profiles.set(xscale="log", xlabel="parameters", ylabel="loss")
        lines = ((sizes, report.sizes, "best size"), (frontier, report.frontier, "best loss"))
        for axes, band, label in lines:
            axes.fill_between(band.x, band.low, band.high, color=BLUE, alpha=0.2, linewidth=0)
            axes.plot(band.x, band.y, color=BLUE, label=f"{label}, 95 % interval")
            axes.axvline(runs.flops.max(), color=INK, linestyle=":", linewidth=1)
            axes.set(xscale="log", xlabel="training FLOPs")
        frontier.scatter(runs.flops, runs.loss, 8, INK, alpha=0.5)
        if report.checks:
            x, y = [c.flops for c in report.checks], [c.loss for c in report.checks]
            frontier.plot(x, y, "*", color=ORANGE, markersize=11, label="runs, not fitted")
        if report.isoflop:
            inside = report.isoflop.inside
            sizes.plot([p.flops for p in inside], [p.parameters for p in inside], "o",
                       color=ORANGE, markersize=4, label="IsoFLOP optima")  # fmt: skip
        sizes.set(yscale="log", ylabel="parameters")
        frontier.set_ylabel("loss")
        for axes in (profiles, sizes, frontier):
            axes.legend(frameon=False, fontsize=8)
            _label_powers(axes.xaxis)
        _label_powers(sizes.yaxis)


def _label_powers(axis: "Axis") -> None:
    """Label powers of ten, and thrice them where there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 3) if high / low < FEW else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    """Return a number such as 2.5e5."""
    return f"{value:.2g}".replace("e+0", "e").replace("e+", "e")
