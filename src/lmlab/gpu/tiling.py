"""Tiling: how far tiles in shared memory cut the traffic of a matrix product."""

from dataclasses import dataclass

from lmlab.errors import UserError
from lmlab.gpu.names import BYTES, Precision
from lmlab.gpu.occupancy import ceil_div
from lmlab.gpu.roofline import LARGEST_SIZE, Work, ridge
from lmlab.gpu.sheets import Sheet

DEPTH = 32
"""Columns of the left factor that a block loads at a time."""


@dataclass(frozen=True)
class Tiling:
    """A matrix product whose blocks compute tiles of `tile` x `tile`; tile 1 is the naive one."""

    tile: int
    work: Work
    """FLOPs, and the bytes that blocks read and write without any cache."""
    shared_memory: int
    """Bytes that a block needs, for all stages of its pipeline."""
    fits: bool
    bound: str
    """compute or memory."""


def tiling(
    sheet: Sheet,
    sizes: tuple[int, int, int],
    tile: int,
    precision: Precision = "bf16",
    stages: int = 2,
) -> Tiling:
    """Return the traffic of an (m, k) by (k, n) product, `sizes` being (m, n, k).

    Each element of the left factor is read once for every column of tiles, each of the right one
    once for every row of tiles: tiles of T cut the reads to 1 / T. Raises UserError for sizes below
    1.
    """
    m, n, k = sizes
    if min(m, n, k, tile, stages) < 1:
        raise UserError(
            f"sizes must be 1 or more, got {m} x {n} x {k}, tile {tile} and {stages} stages"
        )
    if max(m, n, k, stages) > LARGEST_SIZE:
        raise UserError(f"sizes and stages go up to {LARGEST_SIZE}, got {max(m, n, k, stages)}")
    size = BYTES[precision]
    reads = ceil_div(n, tile) * m * k + ceil_div(m, tile) * k * n
    name = f"tiles of {tile}" if tile > 1 else "naive"
    work = Work(name, 2.0 * m * n * k, (reads + m * n) * size, precision)
    shared = int(2 * tile * DEPTH * size * stages) if tile > 1 else 0
    bound = "compute" if work.intensity >= ridge(sheet, precision) else "memory"
    return Tiling(tile, work, shared, shared <= sheet.shared_memory_per_block, bound)
