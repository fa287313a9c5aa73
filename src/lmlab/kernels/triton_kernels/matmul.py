"""A matrix product in tiles, whose traffic `matmul_tiles.py` predicts."""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from lmlab.kernels.matmul_tiles import MatmulTiles
from lmlab.kernels.support import check_dtype, matmul_precision

NEIGHBOURS = 8
"""Rows of tiles computed side by side, which then share the second matrix in the L2 cache."""


@triton.jit
def matmul_kernel(
    a, b, out, a_row, b_row, out_row, m, n, depth,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    NEIGHBOURS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write one tile of `a b`; grid: tiles, in groups of NEIGHBOURS rows of tiles."""
    down, across = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    group = tl.program_id(0) // (NEIGHBOURS * across)
    height = tl.minimum(down - group * NEIGHBOURS, NEIGHBOURS)
    within = tl.program_id(0) % (NEIGHBOURS * across)
    i, j = group * NEIGHBOURS + within % height, within // height
    row, column = i * BLOCK_M + tl.arange(0, BLOCK_M), j * BLOCK_N + tl.arange(0, BLOCK_N)
    sums = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.float32)
    for start in range(0, depth, BLOCK_K):
        inner = start + tl.arange(0, BLOCK_K)
        a_mask = (row[:, None] < m) & (inner[None, :] < depth)
        b_mask = (inner[:, None] < depth) & (column[None, :] < n)
        a_places = a + row[:, None].to(tl.int64) * a_row + inner[None, :]
        b_places = b + inner[:, None].to(tl.int64) * b_row + column[None, :]
        left = tl.load(a_places, mask=a_mask, other=0.0)
        right = tl.load(b_places, mask=b_mask, other=0.0)
        sums = tl.dot(left, right, sums, input_precision=PRECISION)
    places = out + row[:, None].to(tl.int64) * out_row + column[None, :]
    inside = (row[:, None] < m) & (column[None, :] < n)
    tl.store(places, sums.to(out.dtype.element_ty), mask=inside)


TILES = MatmulTiles(rows=128, columns=128, depth=32)
LAUNCH = {"num_warps": 8, "num_stages": 3}


def triton_matmul(
    a: Float[Tensor, "m k"], b: Float[Tensor, "k n"], tiles: MatmulTiles = TILES
) -> Float[Tensor, "m n"]:
    """Return `a b` with sums in float32; raises ValueError for shapes or types that do not fit."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or a.dtype != b.dtype:
        raise ValueError(
            f"cannot multiply {tuple(a.shape)} {a.dtype} and {tuple(b.shape)} {b.dtype}"
        )
    check_dtype(a.dtype)
    a, b = a.contiguous(), b.contiguous()
    (m, depth), n = a.shape, b.shape[1]
    out = a.new_empty(m, n)
    with torch.cuda.device_of(a):
        matmul_kernel[(triton.cdiv(m, tiles.rows) * triton.cdiv(n, tiles.columns),)](
            a, b, out, depth, n, n, m, n, depth,
            BLOCK_M=tiles.rows, BLOCK_N=tiles.columns, BLOCK_K=tiles.depth,
            NEIGHBOURS=NEIGHBOURS, PRECISION=matmul_precision(a.dtype), **LAUNCH,
        )  # fmt: skip
    return out
