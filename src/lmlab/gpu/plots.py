"""Pictures of the calculators of `lmlab gpu`."""

from collections.abc import Sequence
from math import log
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from lmlab.figures import BLUE, COLORS, FAINT, INK, ORANGE, picture
from lmlab.gpu.alignment import alignment, row_bytes
from lmlab.gpu.coalescing import WIDTHS, Access, access
from lmlab.gpu.names import Precision
from lmlab.gpu.occupancy import Occupancy, occupancy
from lmlab.gpu.roofline import LARGEST_SIZE, Prediction, ridge
from lmlab.gpu.sheets import Sheet
from lmlab.gpu.tiling import Tiling
from lmlab.gpu.waves import Waves, waves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.text import Annotation

TOUCHING = 0.02
"""Distance of two dots, as a share of the picture's width, below which they share a label."""
PLACES = (
    ((-8, 2), "right", "bottom"),
    ((8, -2), "left", "top"),
    ((8, 2), "left", "bottom"),
    ((-8, -2), "right", "top"),
    ((0, 7), "center", "bottom"),
    ((0, -7), "center", "top"),
)
"""Where a label may stand beside its point: offset in points, and its edges there."""


def counted(number: int, noun: str) -> str:
    """Return a number of things in words."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def plot_occupancy(kernel: Occupancy, path: Path) -> None:
    """Draw the occupancy against threads, registers and shared memory; the kernel is a dot."""
    sheet = kernel.sheet
    now = (kernel.threads, kernel.registers, kernel.shared_memory)
    step = max(1, sheet.shared_memory_per_block // 128)
    axes = {
        "threads of a block": range(1, sheet.max_threads_per_block + 1),
        "registers of a thread": range(8, sheet.registers_per_thread + 1),
        "shared memory of a block (KiB)": range(0, sheet.shared_memory_per_block + 1, step),
    }
    title = f"Occupancy on {sheet.name}"
    with picture(path, title, (11.0, 3.6), panels=3) as panels:
        for index, (label, values) in enumerate(axes.items()):
            shares = []
            for value in values:
                changed = [*now]
                changed[index] = value
                shares.append(100 * occupancy(sheet, *changed).share)
            scale = 1024 if index == 2 else 1
            panel = panels[index]
            panel.plot([v / scale for v in values], shares, color=BLUE, drawstyle="steps-pre")
            panel.plot(now[index] / scale, 100 * kernel.share, "o", color=ORANGE, zorder=3)
            panel.set(xlabel=label, ylim=(0, 105))
        panels[0].set_ylabel("occupancy (%)")


def plot_roofline(
    predictions: Sequence[Prediction], sheet: Sheet, precision: Precision, what: str, path: Path
) -> None:
    """Draw the roof of each precision in use and the operations of `what` under it."""
    shown = [p for p in predictions if p.work.flops and p.work.bytes]
    used = dict.fromkeys([precision, *(p.work.precision for p in shown)])
    edge = [ridge(sheet, precision), *(p.work.intensity for p in shown)]
    low, high = min(edge) / 4, max(edge) * 6
    title = "\n".join(wrap(f"Roofline of {sheet.name}: {what}", 80))
    with picture(path, title, (8.6, 4.8)) as (panel,):
        for color, each in zip((INK, FAINT, FAINT), used, strict=False):
            top = sheet.peak(each)
            xs = [low, ridge(sheet, each), high]
            panel.plot(xs, [x * sheet.bandwidth for x in xs[:1]] + [top, top], color=color)
            label = f"{each}: {top / 1e12:,.0f} TFLOP/s"
            panel.annotate(
                label,
                (high, top),
                xytext=(0, 8),
                textcoords="offset points",
                ha="right",
                color=color,
            )
        longest_first = sorted(shown, key=lambda p: -p.seconds)
        dots = together(longest_first, log(high / low))
        for number, p in enumerate(longest_first):
            dot = next(index for index, numbers in enumerate(dots) if number in numbers)
            panel.plot(
                p.work.intensity,
                p.attainable,
                "osD^vP*X"[dot // len(COLORS) % 8],
                color=COLORS[dot % len(COLORS)],
                markersize=7,
                markeredgecolor="white",
                zorder=3,
                label=f"{number + 1}  {p.work.name} ({p.seconds * 1e3:,.3g} ms, {p.bound})",
            )
        number_dots(panel, [[(n + 1, longest_first[n]) for n in numbers] for numbers in dots])
        panel.set(xscale="log", yscale="log", xlim=(low, high))
        panel.set(xlabel="arithmetic intensity (FLOP/byte)", ylabel="attainable FLOP/s")
        panel.legend(fontsize=7.5, edgecolor="none", loc="center left", bbox_to_anchor=(1.0, 0.5))


def number_dots(panel: "Axes", dots: Sequence[Sequence[tuple[int, Prediction]]]) -> None:
    """Write the numbers of a dot's operations beside it: under the roof, or along its slope.

    On the slope, dots near one another have theirs on different sides.
    """
    above = False
    for dot in reversed(dots):  # the dots under the roof first
        members = sorted((p for _, p in dot), key=_intensity)
        under_roof = members[-1].bound == "compute"
        above = not above and not under_roof
        at = members[0 if above else -1]
        panel.annotate(
            ("\n" if under_roof else ", ").join(str(number) for number, _ in dot),
            (at.work.intensity, at.attainable),
            xytext=(0, -6) if under_roof else (-6, 1) if above else (6, -1),
            textcoords="offset points",
            ha="center" if under_roof else "right" if above else "left",
            va="bottom" if above else "top",
            fontsize=7.5,
        )


def together(predictions: Sequence[Prediction], span: float) -> list[list[int]]:
    """Return the places of the operations in each dot; those that would touch share one.

    Dots are sorted by intensity.
    `span` is the width of the picture, as the logarithm of its intensities' ratio.
    """

    def touch(one: Prediction, other: Prediction) -> bool:
        apart = (_intensity(one) / _intensity(other), one.attainable / other.attainable)
        return all(abs(log(each)) < TOUCHING * span for each in apart)

    dots: list[list[int]] = []
    for place in sorted(range(len(predictions)), key=lambda place: _intensity(predictions[place])):
        near = (dot for dot in dots if touch(predictions[dot[-1]], predictions[place]))
        dot = next(near, None)
        if dot is None:
            dots.append([place])
        else:
            dot.append(place)
    return [sorted(dot) for dot in dots]


def _intensity(prediction: Prediction) -> float:
    return prediction.work.intensity


def plot_waves(
    sheet: Sheet, found: Sequence[Waves], tile: tuple[int, int], per_sm: int, path: Path
) -> None:
    """Draw the share of busy SMs against the size of a square result; the sizes asked for: dots."""
    end = min(max(each.m for each in found) * 2, LARGEST_SIZE)
    sizes = range(1, end + 1, max(1, end // 2000))
    busy = [100 * waves(sheet, size, size, tile, per_sm).busy for size in sizes]
    with picture(path, f"Waves of {tile[0]} x {tile[1]} tiles on {sheet.name}") as (panel,):
        (line,) = panel.plot(list(sizes), busy, color=BLUE, linewidth=1.0)
        for each in found:
            panel.plot(each.m, 100 * each.busy, "o", color=ORANGE, zorder=3)
        panel.set(xlabel="size of the square result", ylabel="SMs busy (%)", ylim=(0, 105))
        panel.locator_params(axis="x", integer=True)
        texts = {
            (float(each.m), 100 * each.busy): f"{each.m}: {counted(each.tiles, 'tile')}, "
            f"{counted(each.waves, 'wave')}"
            for each in found
        }
        label_where_free(panel, line, texts)


def label_where_free(
    panel: "Axes", line: "Line2D", texts: dict[tuple[float, float], str]
) -> list["Annotation"]:
    """Write texts beside their points, and return them; one that has no room is left out.

    A place that the line does not cross is preferred.
    """
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

    assert isinstance(panel.figure, Figure)
    panel.figure.draw_without_rendering()  # which puts the axes in their place
    inside = panel.get_window_extent()
    curve = panel.transData.transform_path(line.get_path())
    pixels = [panel.transData.transform(point) for point in texts]
    taken = [Bbox.from_bounds(x - 7, y - 7, 14, 14) for x, y in pixels]
    written = []
    for point, text in texts.items():
        crossed, free = dict[Annotation, bool](), dict[Annotation, Bbox]()
        for (right, up), across, along in PLACES:
            note = panel.annotate(
                text,
                point,
                xytext=(right, up),
                textcoords="offset points",
                ha=across,
                va=along,
                fontsize=8.5,
                color=INK,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
            )
            box = note.get_window_extent()
            corners = [(box.x0, box.y0), (box.x1, box.y1)]
            if all(inside.contains(*c) for c in corners) and not box.count_overlaps(taken):
                free[note], crossed[note] = box, curve.intersects_bbox(box, filled=False)
            else:
                note.remove()
        best = min(free, key=lambda note: crossed[note], default=None)
        for note, box in free.items():
            if note is best:
                taken.append(box.padded(4))
                written.append(note)
            else:
                note.remove()
    return written


def plot_coalescing(sheet: Sheet, found: Sequence[Access], path: Path) -> None:
    """Draw the share of useful bytes against the stride for each width; `found` are marked."""
    strides = range(1, 33)
    with picture(path, f"Coalescing on {sheet.name}: one warp") as (panel,):
        for width, color in zip(WIDTHS, COLORS, strict=False):
            shares = [100 * access(sheet, stride, 0, width).efficiency for stride in strides]
            panel.plot(
                list(strides),
                shares,
                color=color,
                marker=".",
                label=f"{counted(width, 'byte')} each",
            )
        panel.plot(
            [a.stride for a in found], [100 * a.efficiency for a in found], "D", color=INK,
            label="printed", markersize=4, zorder=3,
        )  # fmt: skip
        panel.set(xlabel="stride (elements)", ylabel="useful bytes (%)", ylim=(0, 105))
        panel.legend(edgecolor="none")


def plot_tiling(sheet: Sheet, tilings: Sequence[Tiling], precision: Precision, path: Path) -> None:
    """Draw traffic and intensity against the size of the tiles."""
    tiles = [t.tile for t in tilings]
    with picture(path, f"Tiles of a matrix product on {sheet.name}", (9.6, 3.8), 2) as (
        left,
        right,
    ):
        left.plot(tiles, [t.work.bytes / 1e9 for t in tilings], color=BLUE, marker="o")
        left.set(xscale="log", yscale="log", xlabel="tile", ylabel="traffic (GB)")
        right.plot(tiles, [t.work.intensity for t in tilings], color=BLUE, marker="o")
        right.axhline(ridge(sheet, precision), color=FAINT, linestyle="--")
        right.annotate(
            f"ridge of {precision}",
            (tiles[0], ridge(sheet, precision)),
            xytext=(0, 3),
            textcoords="offset points",
            color="#6a737d",
        )
        right.set(xscale="log", yscale="log", xlabel="tile", ylabel="FLOP/byte")
        for panel in (left, right):
            panel.set_xticks(tiles, [str(tile) for tile in tiles])
            panel.minorticks_off()


def plot_alignment(sheet: Sheet, size: int, precision: Precision, path: Path) -> None:
    """Draw the sectors of 128 bytes of a row for the sizes around one size."""
    sizes = [n for n in range(max(1, size - 40), size + 72) if row_bytes(n, precision) is not None]
    sectors = [alignment(sheet, each, precision).sectors for each in sizes]
    with picture(path, f"Rows around {size} {precision} elements on {sheet.name}") as (panel,):
        for each, touched in zip(sizes, sectors, strict=True):
            padded = each % 64 == 0
            color = ORANGE if each == size else COLORS[2] if padded else BLUE
            large = padded or each == size
            panel.plot(each, touched, "o", color=color, markersize=8 if large else 3.5, zorder=3)
            if large:
                label = f"{each} = 64 x {each // 64}" if padded else f"{each}"
                panel.annotate(
                    label,
                    (each, touched),
                    xytext=(0, -14 if padded else 7),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8.5,
                )
        panel.set(xlabel="elements of a row", ylabel="sectors for 128 bytes")
        panel.margins(y=0.12)
