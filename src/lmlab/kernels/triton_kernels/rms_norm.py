"""RMSNorm in one pass forward and one pass backward."""

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from lmlab.kernels.support import check_dtype

ELEMENTS = 2048
"""Elements of a tile of rows; one row may have more."""
PROGRAMS = 512
"""Most programs of the backward pass; each keeps a sum of the weight's gradient."""


@triton.jit
def rms_norm_kernel(
    x, weight, out, inverse, rows, columns, eps, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """Write a tile of normalised rows and `1 / sqrt(mean(x^2) + eps)`; grid: tiles of rows."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    places = row[:, None] * columns + column[None, :]
    value = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    r = 1 / tl.sqrt(tl.sum(value * value, 1) / columns + eps)
    gain = tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32)
    result = value * r[:, None] * gain[None, :]
    tl.store(out + places, result.to(out.dtype.element_ty), mask=inside)
    tl.store(inverse + row, r, mask=row < rows)


@triton.jit
def rms_norm_grad_kernel(
    grad, x, weight, inverse, x_grad, partial, rows, columns, tiles,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the gradients of `tiles` tiles of rows, and their part of the weight's gradient."""
    column = tl.arange(0, BLOCK)
    real = column < columns
    gain = tl.load(weight + column, mask=real, other=0.0).to(tl.float32)
    sums = tl.zeros([BLOCK], dtype=tl.float32)
    for tile in range(tiles):
        first = (tl.program_id(0) * tiles + tile) * ROWS
        row = (first + tl.arange(0, ROWS)).to(tl.int64)
        inside = (row[:, None] < rows) & real[None, :]
        places = row[:, None] * columns + column[None, :]
        r = tl.load(inverse + row, mask=row < rows, other=0.0)
        normed = tl.load(x + places, mask=inside, other=0.0).to(tl.float32) * r[:, None]
        g = tl.load(grad + places, mask=inside, other=0.0).to(tl.float32)
        scaled = g * gain[None, :]
        mean = tl.sum(scaled * normed, 1) / columns
        result = r[:, None] * (scaled - normed * mean[:, None])
        tl.store(x_grad + places, result.to(x_grad.dtype.element_ty), mask=inside)
        sums += tl.sum(g * normed, 0)
    tl.store(partial + tl.program_id(0) * columns + column, sums, mask=real)


@torch.library.custom_op(
    "lmlab::triton_rms_norm",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, float eps) -> (Tensor, Tensor)",
)
def triton_rms_norm(
    x: Float[Tensor, "rows d"], weight: Float[Tensor, "d"], eps: float
) -> tuple[Tensor, Tensor]:
    """Return the normalised rows in the type of x, and `1 / sqrt(mean(x^2) + eps)` in float32.

    Raises ValueError for a type that the kernel does not take.
    """
    check_dtype(x.dtype)
    x = x.contiguous()
    out, inverse = torch.empty_like(x), x.new_empty(len(x), dtype=torch.float32)
    rows, block = row_tile(x.shape[1])
    with torch.cuda.device_of(x):
        rms_norm_kernel[(triton.cdiv(len(x), rows),)](
            x,
            weight.contiguous(),
            out,
            inverse,
            *x.shape,
            eps,
            ROWS=rows,
            BLOCK=block,
            num_warps=row_warps(block),
        )
    return out, inverse


@torch.library.custom_op("lmlab::triton_rms_norm_backward", mutates_args=())
def triton_rms_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and of the weight."""
    x, grad = x.contiguous(), grad.contiguous()
    x_grad, (rows, block) = torch.empty_like(x), row_tile(x.shape[1])
    tiles = max(1, triton.cdiv(triton.cdiv(len(x), rows), PROGRAMS))
    programs = triton.cdiv(len(x), rows * tiles)
    partial = x.new_empty(programs, x.shape[1], dtype=torch.float32)
    with torch.cuda.device_of(x):
        rms_norm_grad_kernel[(programs,)](
            grad, x, weight.contiguous(), inverse, x_grad, partial, *x.shape, tiles,
            ROWS=rows, BLOCK=block, num_warps=row_warps(block),
        )  # fmt: skip
    return x_grad, partial.sum(dim=0).to(weight.dtype)


@triton_rms_norm.register_fake
def _(x: Tensor, weight: Tensor, eps: float) -> Any:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    return out, x.new_empty(len(x), dtype=torch.float32)


@triton_rms_norm_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, inverse: Tensor) -> Any:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    return out, torch.empty_like(weight, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight, output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> Any:
    return *triton_rms_norm_backward(grad, *ctx.saved_tensors), None


triton_rms_norm.register_autograd(_differentiate, setup_context=_save)
vars(triton_rms_norm)["__name__"] = "triton_rms_norm"  # operators of torch have none


def row_tile(width: int) -> tuple[int, int]:
    """Return rows and columns of a tile."""
    block = max(16, triton.next_power_of_2(width))
    return max(1, ELEMENTS // block), block


def row_warps(block: int) -> int:
    """Return the warps of a block for tiles of `block` columns."""
    return 8 if block <= ELEMENTS else 32
