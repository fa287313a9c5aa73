"""scaling.html: one page of a table's laws, which works without a network."""

from pathlib import Path
from typing import Any

import numpy as np

from lmlab.files import atomic_write
from lmlab.runs.page import environment, plotly
from lmlab.scaling.law import NAMES
from lmlab.scaling.report import Band, Report


def write_page(report: Report, path: Path) -> Path:
    """Write the page and return its path."""
    fit, runs = report.parametric, report.runs
    values = dict(zip(NAMES, fit.law.values(), strict=True))
    values |= dict(zip(("a", "b"), fit.law.exponents, strict=True))
    largest = float(runs.flops.max())
    template = environment(Path(__file__).parent / "templates").get_template("scaling.html.j2")
    page = template.render(
        title=Path(runs.source).stem,
        runs=runs,
        fit=fit,
        report=report,
        values=values,
        intervals=fit.intervals(),
        flat=fit.law.flat_region(largest, runs.cost),
        largest=largest,
        residual=float(np.median(np.abs(fit.residuals))),
        data=_data(report),
        plotly=plotly(),
    )
    with atomic_write(path) as file:
        file.write(page)
    return path


def _data(report: Report) -> dict[str, Any]:
    runs = report.runs
    profiles = report.isoflop.profiles if report.isoflop else ()
    return {
        "runs": {
            "n": runs.parameters.tolist(),
            "d": runs.tokens.tolist(),
            "c": runs.flops.tolist(),
            "loss": runs.loss.tolist(),
            "residual": report.parametric.residuals.tolist(),
        },
        "profiles": [
            {
                "c": p.flops,
                "n": p.parameters,
                "loss": p.loss,
                "edge": p.edge,
                "curve": p.curve[::10].T.tolist(),
            }
            for p in profiles
        ],
        "curves": [{"c": c, "curve": report.law_curve(c).T.tolist()} for c in report.budgets],
        "frontier": _line(report.frontier),
        "sizes": _line(report.sizes),
        "isoflop_sizes": _line(report.isoflop_sizes) if report.isoflop_sizes else None,
        "target": report.target,
        "checks": [{"c": c.flops, "loss": c.loss} for c in report.checks],
    }


def _line(band: Band) -> dict[str, list[Any]]:
    """Return a band; bounds that are not finite are left open."""

    def finite(values: np.ndarray) -> list[float | None]:
        return [float(v) if np.isfinite(v) else None for v in values]

    return {
        "x": band.x.tolist(),
        "y": band.y.tolist(),
        "low": finite(band.low),
        "high": finite(band.high),
    }
