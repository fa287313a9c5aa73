"""A picture of a table's laws."""

from pathlib import Path

import numpy as np

from lmlab.figures import BLUE, INK, ORANGE, picture
from lmlab.scaling.report import Report


def write_picture(report: Report, path: Path) -> None:
    """Draw the IsoFLOP profiles, the best sizes and the frontier as a PNG."""
    from matplotlib import colormaps

    runs = report.runs
    title = f"{len(runs)} runs, best size N ~ C^{report.parametric.law.exponents[0]:.3f}"
    with picture(path, title, (12.6, 4.0), panels=3) as (profiles, sizes, frontier):
        low, high = np.log(runs.flops.min()), np.log(runs.flops.max())
        shades = colormaps["viridis"]((np.log(runs.flops) - low) / max(high - low, 1e-9) * 0.9)
        profiles.scatter(runs.parameters, runs.loss, 12, shades, zorder=3)
        for flops in report.budgets:
            curve = report.law_curve(flops)
            shade = colormaps["viridis"]((np.log(flops) - low) / max(high - low, 1e-9) * 0.9)
            profiles.plot(*curve.T, color=shade, linewidth=1)
        best, _ = report.parametric.law.optimum(np.array(report.budgets))
        losses = report.parametric.law.best_loss(np.array(report.budgets))
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
        if report.isoflop:
            inside = report.isoflop.inside
            sizes.plot([p.flops for p in inside], [p.parameters for p in inside], "o",
                       color=ORANGE, markersize=4, label="IsoFLOP optima")  # fmt: skip
        sizes.set(yscale="log", ylabel="parameters")
        frontier.set_ylabel("loss")
        for axes in (profiles, sizes, frontier):
            axes.legend(frameon=False, fontsize=8)
