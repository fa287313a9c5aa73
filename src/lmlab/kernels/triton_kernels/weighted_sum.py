"""The weighted sum of each row: a first kernel, with its gradient."""

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from lmlab.kernels.once import once_differentiable
from lmlab.kernels.support import check_dtype

ROWS, WIDTH = 16, 64
"""Rows and columns of a tile."""


@triton.jit
def weighted_sum_kernel(
    x, weight, out, x_row, rows, columns, BLOCK_ROWS: tl.constexpr, BLOCK_WIDTH: tl.constexpr
):
    """Write the sums of a tile of rows, in steps of BLOCK_WIDTH columns; grid: tiles of rows."""
    row = (tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)).to(tl.int64)
    sums = tl.zeros([BLOCK_ROWS], dtype=tl.float32)
    for start in range(0, columns, BLOCK_WIDTH):
        column = start + tl.arange(0, BLOCK_WIDTH)
        inside = (row[:, None] < rows) & (column[None, :] < columns)
        part = tl.load(x + row[:, None] * x_row + column[None, :], mask=inside, other=0.0)
        factors = tl.load(weight + column, mask=column < columns, other=0.0)
        sums += tl.sum(part.to(tl.float32) * factors[None, :].to(tl.float32), 1)
    tl.store(out + row, sums.to(out.dtype.element_ty), mask=row < rows)


@triton.jit
def weighted_sum_grad_kernel(
    grad, x, weight, x_grad, partial, x_row, rows, columns,
    BLOCK_ROWS: tl.constexpr, BLOCK_WIDTH: tl.constexpr,
):  # fmt: skip
    """Write the gradient of a tile of rows, and its part of the weight's; grid: tiles of rows.

    The parts are added afterwards, because blocks cannot share a sum without atomic adds.
    """
    tile = tl.program_id(0)
    row = (tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)).to(tl.int64)
    g = tl.load(grad + row, mask=row < rows, other=0.0).to(tl.float32)
    for start in range(0, columns, BLOCK_WIDTH):
        column = start + tl.arange(0, BLOCK_WIDTH)
        inside = (row[:, None] < rows) & (column[None, :] < columns)
        part = tl.load(x + row[:, None] * x_row + column[None, :], mask=inside, other=0.0)
        factors = tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32)
        result = (g[:, None] * factors[None, :]).to(x_grad.dtype.element_ty)
        tl.store(x_grad + row[:, None] * columns + column[None, :], result, mask=inside)
        sums = tl.sum(part.to(tl.float32) * g[:, None], 0)
        tl.store(partial + tile * columns + column, sums, mask=column < columns)


class WeightedSum(torch.autograd.Function):
    """`WeightedSum.apply(x, weight)`: the sum of the last dimension times the weight."""

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "*rows d"], weight: Float[Tensor, "d"]
    ) -> Float[Tensor, "*rows"]:
        """Return the sums; raises ValueError for shapes or types that do not fit."""
        if weight.shape != x.shape[-1:]:
            raise ValueError(f"a weight of {tuple(weight.shape)} does not fit {tuple(x.shape)}")
        check_dtype(x.dtype)
        flat = x.reshape(-1, x.shape[-1]).contiguous()
        ctx.save_for_backward(flat, weight)
        ctx.shape = x.shape
        out = x.new_empty(x.shape[:-1])
        with torch.cuda.device_of(flat):
            weighted_sum_kernel[(triton.cdiv(len(flat), ROWS),)](
                flat, weight.contiguous(), out, flat.stride(0), *flat.shape,
                BLOCK_ROWS=ROWS, BLOCK_WIDTH=WIDTH,
            )  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Return the gradients of x and of the weight."""
        flat, weight = ctx.saved_tensors
        tiles = triton.cdiv(len(flat), ROWS)
        x_grad = torch.empty_like(flat)
        partial = flat.new_empty(tiles, flat.shape[1], dtype=torch.float32)
        with torch.cuda.device_of(flat):
            weighted_sum_grad_kernel[(tiles,)](
                grad.reshape(-1).contiguous(), flat, weight.contiguous(), x_grad, partial,
                flat.stride(0), *flat.shape, BLOCK_ROWS=ROWS, BLOCK_WIDTH=WIDTH,
            )  # fmt: skip
        return x_grad.view(ctx.shape), partial.sum(dim=0).to(weight.dtype)
