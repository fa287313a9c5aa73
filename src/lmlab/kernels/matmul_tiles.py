"""A matrix product in tiles, and how many bytes it moves: the model of the Triton kernel."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lmlab.kernels.attention_operator import accumulator


@dataclass(frozen=True)
class Traffic:
    """Bytes between a GPU's main memory and its processors."""

    read: int
    written: int

    @property
    def total(self) -> int:
        """Bytes in both directions."""
        return self.read + self.written


@dataclass(frozen=True)
class MatmulTiles:
    """Tiles of the result, `rows` x `columns`, that read `depth` of the inner dimension at once."""

    rows: int
    columns: int
    depth: int

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.depth) < 1:
            raise ValueError(f"tiles need one element or more in each direction, got {self}")


def matmul_traffic(m: int, n: int, k: int, tiles: MatmulTiles, itemsize: int) -> Traffic:
    """Return the bytes of an (m, k) by (k, n) product without a cache between the tiles.

    Each row of tiles reads all of the second matrix, each column of tiles all of the first.
    """
    across, down = -(-n // tiles.columns), -(-m // tiles.rows)
    return Traffic(read=(m * k * across + k * n * down) * itemsize, written=m * n * itemsize)


def matmul_intensity(m: int, n: int, k: int, tiles: MatmulTiles, itemsize: int) -> float:
    """Return floating-point operations per byte of traffic; `rows columns / (rows + columns)` for
    large matrices of one-byte elements, times 2 / itemsize.
    """
    return 2 * m * n * k / matmul_traffic(m, n, k, tiles, itemsize).total


def tiled_matmul(
    a: Float[Tensor, "m k"], b: Float[Tensor, "k n"], tiles: MatmulTiles
) -> tuple[Float[Tensor, "m n"], Traffic]:
    """Return `a b` computed tile by tile with sums in float32 or wider, and the bytes it moved.

    Raises ValueError when the shapes do not fit.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"cannot multiply shapes {tuple(a.shape)} and {tuple(b.shape)}")
    (m, k), n = a.shape, b.shape[1]
    out, dtype = a.new_empty(m, n), accumulator(a.dtype)
    read = written = 0
    for i in range(0, m, tiles.rows):
        for j in range(0, n, tiles.columns):
            tile = out[i : i + tiles.rows, j : j + tiles.columns]
            sums = torch.zeros(tile.shape, dtype=dtype, device=a.device)
            for at in range(0, k, tiles.depth):
                left = a[i : i + tiles.rows, at : at + tiles.depth]
                right = b[at : at + tiles.depth, j : j + tiles.columns]
                read += left.nbytes + right.nbytes
                sums += left.to(dtype) @ right.to(dtype)
            tile.copy_(sums)
            written += tile.nbytes
    return out, Traffic(read, written)
