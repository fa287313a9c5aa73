"""Wave quantization: the tiles of a matrix product run in waves, and the last one may be empty."""

from dataclasses import dataclass

from lmlab.errors import UserError
from lmlab.gpu.occupancy import ceil_div
from lmlab.gpu.roofline import LARGEST_SIZE
from lmlab.gpu.sheets import Sheet

TILE = (256, 128)
"""Rows and columns of the result that one block computes: a large tile of cuBLAS."""


@dataclass(frozen=True)
class Waves:
    """The blocks of one matrix product on a GPU."""

    m: int
    n: int
    tiles: int
    """Blocks: one computes one tile of the result."""
    at_once: int
    """Blocks that the GPU runs at the same time."""

    @property
    def waves(self) -> int:
        """Rounds of blocks."""
        return ceil_div(self.tiles, self.at_once)

    @property
    def busy(self) -> float:
        """Share of the places for blocks that have one, over all waves."""
        return self.tiles / (self.waves * self.at_once)

    @property
    def last(self) -> int:
        """Blocks of the last wave."""
        return self.tiles - (self.waves - 1) * self.at_once


def waves(
    sheet: Sheet, m: int, n: int, tile: tuple[int, int] = TILE, blocks_per_sm: int = 1
) -> Waves:
    """Return the waves of an (m, n) result cut into tiles; raises UserError for sizes below 1."""
    if min(m, n, *tile, blocks_per_sm) < 1:
        raise UserError(
            f"sizes must be 1 or more, got a result of {m} x {n}, tiles of {tile[0]} x {tile[1]} "
            f"and {blocks_per_sm} blocks on an SM"
        )
    if max(m, n) > LARGEST_SIZE:
        raise UserError(f"sizes go up to {LARGEST_SIZE}, got {max(m, n)}")
    tiles = ceil_div(m, tile[0]) * ceil_div(n, tile[1])
    return Waves(m, n, tiles, sheet.sms * blocks_per_sm)
