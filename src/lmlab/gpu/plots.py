"""Pictures of the calculators of `lmlab gpu`."""

from collections.abc import Sequence
from pathlib import Path

from lmlab.figures import BLUE, COLORS, FAINT, INK, ORANGE, picture
from lmlab.gpu.alignment import alignment, row_bytes
from lmlab.gpu.coalescing import WIDTHS, Access, access
from lmlab.gpu.names import Precision
from lmlab.gpu.occupancy import Occupancy, occupancy
from lmlab.gpu.roofline import LARGEST_SIZE, Prediction, ridge
from lmlab.gpu.sheets import Sheet
from lmlab.gpu.tiling import Tiling
from lmlab.gpu.waves import Waves, waves


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
    with picture(path, f"Roofline of {sheet.name}: {what}", (8.6, 4.8)) as (panel,):
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
        for index, p in enumerate(sorted(shown, key=lambda p: -p.seconds)):
            panel.plot(
                p.work.intensity,
                p.attainable,
                "osD^vP*X"[index // len(COLORS) % 8],
                color=COLORS[index % len(COLORS)],
                markersize=7,
                markeredgecolor="white",
                zorder=99 - index,  # the longest on top
                label=f"{p.work.name} ({p.seconds * 1e3:,.3g} ms, {p.bound})",
            )
        panel.set(xscale="log", yscale="log", xlim=(low, high))
        panel.set(xlabel="arithmetic intensity (FLOP/byte)", ylabel="attainable FLOP/s")
        panel.legend(fontsize=7.5, edgecolor="none", loc="center left", bbox_to_anchor=(1.0, 0.5))


def plot_waves(
    sheet: Sheet, found: Sequence[Waves], tile: tuple[int, int], per_sm: int, path: Path
) -> None:
    """Draw the share of busy SMs against the size of a square result; the sizes asked for: dots."""
    end = min(max(each.m for each in found) * 2, LARGEST_SIZE)
    sizes = range(1, end + 1, max(1, end // 2000))
    busy = [100 * waves(sheet, size, size, tile, per_sm).busy for size in sizes]
    with picture(path, f"Waves of {tile[0]} x {tile[1]} tiles on {sheet.name}") as (panel,):
        panel.plot(list(sizes), busy, color=BLUE, linewidth=1.0)
        for each in found:
            panel.plot(each.m, 100 * each.busy, "o", color=ORANGE, zorder=3)
        shown = sorted(found, key=lambda each: -each.busy)[:6]
        for index, each in enumerate(shown):
            panel.annotate(
                f"{each.m}: {counted(each.tiles, 'tile')}, {counted(each.waves, 'wave')}",
                (each.m, 100 * each.busy),
                xytext=((-8, 4), (8, -12))[index % 2] if each.m > end / 4 else (8, -12),
                textcoords="offset points",
                ha=("right", "left")[index % 2] if each.m > end / 4 else "left",
                fontsize=8.5,
                color=INK,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
            )
        panel.set(xlabel="size of the square result", ylabel="SMs busy (%)", ylim=(0, 105))


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
