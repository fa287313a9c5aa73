"""loss.png: the loss curves of a run, for a README or a quick look."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from numpy import multiply

from lmlab.figures import BLUE, FAINT, INK, ORANGE, STYLE
from lmlab.files import atomic_write
from lmlab.runs.curves import smooth, smoothing_weight, wants_log_scale
from lmlab.runs.read import RunRecord, read_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAIN, VALIDATION = BLUE, ORANGE


def write_loss_plot(run_dir: Path) -> Path:
    """Draw loss against steps and against time into `run_dir/loss.png` and return its path."""
    # Figures made by hand: pyplot would keep state, and might want a display.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    run, path = read_run(run_dir), run_dir / "loss.png"
    with rc_context(STYLE), atomic_write(path, "wb") as file:
        figure = Figure(figsize=(9.6, 4.0), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, sharey=True)
        divisor, unit = _time_unit(run)
        _draw(left, run, "step", 1.0)
        _draw(right, run, "seconds", divisor)
        left.set(xlabel="step", ylabel="loss (nats per token)")
        right.set(xlabel=f"time ({unit})")
        left.xaxis.set_major_formatter("{x:,.0f}")
        left.xaxis.set_major_locator(
            MaxNLocator(7, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
        )
        if wants_log_scale(run.losses()):
            left.set_yscale("log")
            left.yaxis.set_major_formatter("{x:g}")
            left.yaxis.set_minor_formatter("")
        _bits_axis(right, run)
        if left.lines:
            # curves fall, diverging ones rise: room is on the other side
            side = "left" if left.get_yscale() == "log" else "right"
            left.legend(loc=f"upper {side}", edgecolor="none")
        else:
            left.set(xticks=[], yticks=[])
            right.set_xticks([])
            left.text(0.5, 0.5, "nothing logged yet", transform=left.transAxes, ha="center")
        title = figure.suptitle(_title(run), x=0.012, ha="left", fontsize=11.5, fontweight="bold")
        title.set_parse_math(False)  # a dollar sign in a name is a dollar sign
        figure.savefig(file, format="png", metadata={"Title": f"{run.name}: loss"})
    return path


def _draw(axes: Axes, run: RunRecord, x: str, divisor: float) -> None:
    """Draw training loss, validation loss and the marks that belong to them against `x`."""

    def curve(key: str) -> tuple[list[float], list[float]]:
        xs, ys = run.series(key, x)
        return [value / divisor for value in xs], ys

    xs, ys = curve("train/loss")
    weight = smoothing_weight(len(ys))
    if xs and weight:
        axes.plot(xs, ys, color=TRAIN, alpha=0.3, linewidth=1.0)
    if xs:
        marker = "o" if len(xs) == 1 else None
        label = "training (smoothed)" if weight else "training"
        axes.plot(xs, smooth(ys, weight), color=TRAIN, linewidth=1.6, marker=marker, label=label)
    xs, ys = curve("val/loss")
    if xs:
        style = {"color": VALIDATION, "linewidth": 1.6, "marker": "o", "markersize": 3.2}
        axes.plot(xs, ys, label="validation", **style)  # type: ignore[arg-type]
    best = run.best()
    if best and x in best:
        at = (best[x] / divisor, best["val/loss"])
        axes.plot(*at, "*", color=VALIDATION, markersize=13, markeredgecolor="white", label="best")
    bad = run.diverged_at()
    if bad and x in bad:
        axes.axvline(bad[x] / divisor, color=INK, linestyle=":", label="not a number")
    ratio, xz = run.bits_per_byte_over_loss(), run.xz_bits_per_byte()
    if ratio and xz:
        axes.axhline(xz / ratio, color=FAINT, linestyle="--", linewidth=1.1)
        # at the right end, on the side of the line that the curve does not end on
        above = bool(ys) and ys[-1] < xz / ratio
        axes.annotate(
            f"xz: {xz:.2f} bits per byte",
            (0.99, xz / ratio),
            xycoords=axes.get_yaxis_transform(),
            xytext=(0, 3 if above else -3),
            textcoords="offset points",
            ha="right",
            va="bottom" if above else "top",
            fontsize=8.5,
            color="#6a737d",
        )


def _bits_axis(axes: Axes, run: RunRecord) -> None:
    """Give `axes` a second scale on the right: the validation loss in bits per byte."""
    ratio = run.bits_per_byte_over_loss()
    if ratio is None:
        return
    scale = axes.secondary_yaxis(
        "right", functions=(partial(multiply, ratio), partial(multiply, 1 / ratio))
    )
    scale.set_ylabel("validation bits per byte")
    if axes.get_yscale() == "log":
        scale.yaxis.set_major_formatter("{x:g}")
        scale.yaxis.set_minor_formatter("")


def _time_unit(run: RunRecord) -> tuple[float, str]:
    """Return the seconds of the unit in which the run's time reads well, and its name."""
    longest = max((row.get("seconds", 0.0) for row in run.rows), default=0.0)
    if not math.isfinite(longest) or longest < 180:
        return 1.0, "seconds"
    return (60.0, "minutes") if longest < 3 * 3600 else (3600.0, "hours")


def _title(run: RunRecord) -> str:
    best, title = run.best(), run.name
    if best:
        title += f"   best validation loss {best['val/loss']:.3f}"
        if "val/bits_per_byte" in best:
            title += f", {best['val/bits_per_byte']:.3f} bits per byte"
        title += f" at step {best['step']:,.0f}"
    return title if run.status == "finished" else f"{title}   [{run.status}]"
