"""Alignment: sizes of matrices that the memory and the tensor cores like."""

from dataclasses import dataclass
from statistics import mean

from lmlab.errors import UserError
from lmlab.gpu.names import BYTES, Precision
from lmlab.gpu.occupancy import ceil_div, round_up
from lmlab.gpu.roofline import LARGEST_SIZE
from lmlab.gpu.sheets import Sheet

SEGMENT = 128
"""Bytes of a row that a warp reads together: a cache line."""
TENSOR_CORE_BYTES = 16
"""Rows must begin at a multiple of this for the fastest tensor-core kernels (cuBLAS)."""
UNITS = (8, 16, 64, 128)


@dataclass(frozen=True)
class Alignment:
    """A matrix whose rows have `size` elements."""

    size: int
    power: int
    """Largest power of two that divides the size."""
    padded: dict[int, int]
    """Unit -> the next multiple of it."""
    sectors: float
    """Sectors that the first `SEGMENT` bytes of a row touch, mean over the rows."""
    tensor_cores: bool
    """Whether every row begins at a multiple of `TENSOR_CORE_BYTES`."""
    tile_use: float
    """Share of the columns of all tiles of 128 columns that exist."""


def row_bytes(size: int, precision: Precision) -> int | None:
    """Return the bytes of a row; None when they are no whole number."""
    row = size * BYTES[precision]
    return int(row) if row == int(row) else None


def alignment(sheet: Sheet, size: int, precision: Precision = "bf16") -> Alignment:
    """Return what the number of columns of a row-major matrix does.

    Raises UserError for sizes below 1, and for a precision that the GPU lacks.
    """
    if not 1 <= size <= LARGEST_SIZE:
        raise UserError(f"a size must be 1 or more, up to {LARGEST_SIZE}, got {size}")
    sheet.peak(precision)
    row = row_bytes(size, precision)
    if row is None:
        raise UserError(f"a row of {size} {precision} elements is no number of bytes; pad it")
    offsets = [number * row % sheet.sector for number in range(sheet.sector)]  # they repeat
    touched = [ceil_div(offset + SEGMENT, sheet.sector) for offset in offsets]
    return Alignment(
        size,
        size & -size,
        {unit: round_up(size, unit) for unit in UNITS},
        mean(touched),
        row % TENSOR_CORE_BYTES == 0,
        size / round_up(size, UNITS[-1]),
    )
