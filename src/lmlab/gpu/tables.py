"""What the calculators of `lmlab gpu` print."""

from collections.abc import Sequence

from lmlab.gpu.alignment import UNITS, Alignment
from lmlab.gpu.coalescing import Access
from lmlab.gpu.names import Precision
from lmlab.gpu.occupancy import Occupancy, ceil_div
from lmlab.gpu.roofline import Prediction, ridge
from lmlab.gpu.sheets import Sheet
from lmlab.gpu.tiling import Tiling
from lmlab.gpu.waves import Waves
from lmlab.text import aligned_table

Measured = Sequence[float]
"""Seconds on this machine's GPU, one for each row; empty: not measured."""


def occupancy_table(kernel: Occupancy) -> list[str]:
    """Return the blocks that each resource allows, and the occupancy."""
    sheet, limited = kernel.sheet, kernel.limited_by
    have = {
        "warps": f"{sheet.warps_per_sm} warps",
        "blocks": f"{sheet.max_blocks_per_sm} blocks",
        "registers": f"{sheet.registers_per_sm:,} registers",
        "shared memory": f"{sheet.shared_memory_per_sm:,} bytes",
    }
    rows = [("resource", "an SM has", "blocks it allows", "")]
    rows += [
        (name, have[name], f"{blocks}", "<- limits" if name in limited else "")
        for name, blocks in kernel.limits.items()
    ]
    end = (
        f"{kernel.blocks} blocks an SM, {kernel.warps} of {sheet.warps_per_sm} warps: "
        f"occupancy {kernel.share:.1%}, limited by {' and '.join(limited)}"
    )
    if kernel.blocks == 0:
        needed = [name for name in limited if name != "warps"]
        problems = [f"needs more {' and '.join(needed)} than there is"] if needed else []
        if kernel.threads > sheet.max_threads_per_block:
            problems.append(f"has up to {sheet.max_threads_per_block:,} threads")
        end = f"the kernel cannot start: a block {' and '.join(problems)}"
    title = (
        f"{sheet.name}: blocks of {kernel.threads} threads, {kernel.registers} registers a thread, "
        f"{kernel.shared_memory:,} bytes of shared memory a block"
    )
    return [title, *aligned_table(rows), end]


def roofline_table(
    predictions: Sequence[Prediction], sheet: Sheet, precision: Precision, measured: Measured = ()
) -> list[str]:
    """Return arithmetic intensity, bound and least time of each operation, and of all together."""
    total = sum(prediction.seconds for prediction in predictions)
    head = ["operation", "GFLOP", "MB", "FLOP/byte", "predicted ms", "share"]
    rows = [[*head, "measured ms", "bound"] if measured else [*head, "bound"]]
    for index, p in enumerate(predictions):
        row = [
            p.work.name,
            _number(p.work.flops / 1e9),
            _number(p.work.bytes / 1e6),
            _number(p.work.intensity),
            f"{p.seconds * 1e3:,.3f}",
            f"{p.seconds / total:.1%}",
        ]
        if measured:
            row.append(f"{measured[index] * 1e3:,.3f}")
        rows.append([*row, p.bound])
    return [
        f"{sheet.name}, {precision}: {sheet.peak(precision) / 1e12:,.1f} TFLOP/s, "
        f"{sheet.bandwidth / 1e12:,.3g} TB/s, ridge at {ridge(sheet, precision):,.0f} FLOP/byte",
        *aligned_table(rows),
        f"all together at least {total * 1e3:,.3f} ms: a prediction from the data sheet",
    ]


def waves_table(sheet: Sheet, found: Sequence[Waves], measured: Measured = ()) -> list[str]:
    """Return tiles, waves and the share of the SMs' time that has work."""
    head = ["size", "tiles", "waves", "in the last", "SMs busy"]
    rows = [[*head, "measured TFLOP/s", ""] if measured else [*head, ""]]
    for index, each in enumerate(found):
        row = [
            f"{each.m} x {each.n}",
            f"{each.tiles}",
            f"{each.waves}",
            f"{each.last}",
            f"{each.busy:.1%}",
        ]
        if measured:
            flops = 2 * each.m * each.n * each.m
            row.append(f"{flops / measured[index] / 1e12:,.1f}")
        rows.append([*row, ""])
    return [f"{sheet.name}: {found[0].at_once} blocks at once", *aligned_table(rows)]


def coalescing_table(
    sheet: Sheet, accesses: Sequence[Access], measured: Measured = ()
) -> list[str]:
    """Return sectors and the share of useful bytes of each pattern; measured ones are bytes/s."""
    head = ["stride", "offset", "bytes each", "sectors", "least", "transferred", "useful"]
    rows = [[*head, "measured GB/s", ""] if measured else [*head, ""]]
    for index, a in enumerate(accesses):
        row = [f"{a.stride}", f"{a.offset}", f"{a.width}", f"{a.sectors}", f"{a.least_sectors}"]
        row += [f"{a.transferred}", f"{a.efficiency:.1%}"]
        if measured:
            row.append(f"{measured[index] / 1e9:,.0f}")
        rows.append([*row, ""])
    return [
        f"{sheet.name}: one warp of {sheet.warp_size} threads, sectors of {sheet.sector} bytes",
        *aligned_table(rows),
    ]


def tiling_table(sheet: Sheet, tilings: Sequence[Tiling]) -> list[str]:
    """Return traffic and shared memory by the size of the tiles; the first is compared with."""
    naive = tilings[0].work.bytes
    rows = [("tiles", "traffic GB", "less by", "FLOP/byte", "shared KiB", "fits", "bound")]
    rows += [
        (
            t.work.name,
            f"{t.work.bytes / 1e9:,.3f}",
            f"{naive / t.work.bytes:,.1f}x",
            f"{t.work.intensity:,.1f}",
            f"{t.shared_memory / 1024:,.0f}",
            "yes" if t.fits else "no",
            t.bound,
        )
        for t in tilings
    ]
    limit = f"{sheet.name}: a block has up to {sheet.shared_memory_per_block // 1024} KiB"
    return [limit, *aligned_table(rows)]


def alignment_table(sheet: Sheet, sizes: Sequence[Alignment]) -> list[str]:
    """Return what each size is a multiple of, what it is padded to, and what that costs."""
    padded = [f"to x{unit}" for unit in UNITS]
    rows = [("size", "2^i", *padded, "padding", "sectors", "tile use", "tensor cores")]
    rows += [
        (
            f"{a.size}",
            f"{a.power}",
            *(f"{value}" for value in a.padded.values()),
            f"{a.padded[64] / a.size - 1:.2%}",
            f"{a.sectors:.2f}",
            f"{a.tile_use:.1%}",
            "aligned" if a.tensor_cores else "rows not aligned",
        )
        for a in sizes
    ]
    return [
        f"{sheet.name}: padding is to multiples of 64; 128 bytes of an aligned row are "
        f"{ceil_div(128, sheet.sector)} sectors",
        *aligned_table(rows),
    ]


def _number(value: float) -> str:
    """Return a number with two decimals, a small one with two digits."""
    return f"{value:,.2f}" if value >= 0.995 or value == 0 else f"{value:.2g}"
