"""The look of all pictures, and how one is written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmlab.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, INK, FAINT = "#2f6fb5", "#d9480f", "#30363d", "#8b949e"
COLORS = (BLUE, ORANGE, "#2b8a3e", "#862e9c", "#e67700", "#0b7285", "#c2255c", "#5c940d")
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e9ed",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextlib.contextmanager
def picture(
    path: Path, title: str, size: tuple[float, float] = (7.6, 4.2), panels: int = 1
) -> Iterator[list[Axes]]:
    """Yield the axes of `panels` plots side by side; the PNG is written when the block ends."""
    # Figures made by hand: pyplot would keep state, and might want a display.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE), atomic_write(path, "wb") as file:
        figure = Figure(figsize=size, dpi=130, layout="constrained")
        FigureCanvasAgg(figure)
        axes = list(figure.subplots(1, panels, squeeze=False)[0])
        yield axes
        figure.suptitle(title, x=0.012, ha="left", fontsize=11.5, fontweight="bold")
        figure.savefig(file, format="png", metadata={"Title": title})
