"""Cross-entropy of logits in one pass forward and one pass backward."""

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from lmlab.kernels.support import check_dtype

BLOCK = 4096
"""Most logits of a row that are in registers at a time."""


@triton.jit
def cross_entropy_kernel(logits, targets, loss, lse, mean, row_stride, vocab, BLOCK: tl.constexpr):
    """Write loss, log-sum-exp and mean of one row of logits; grid: rows."""
    row = tl.program_id(0).to(tl.int64)
    base = logits + row * row_stride
    largest = tl.full([], float("-inf"), dtype=tl.float32)
    exponentials = tl.zeros([], dtype=tl.float32)
    total = tl.zeros([], dtype=tl.float32)
    for start in range(0, vocab, BLOCK):
        column = start + tl.arange(0, BLOCK)
        x = tl.load(base + column, mask=column < vocab, other=float("-inf")).to(tl.float32)
        updated = tl.maximum(largest, tl.max(x, 0))
        shifted = tl.where(x == float("-inf"), 0.0, tl.exp(x - updated))
        exponentials = exponentials * tl.exp(largest - updated) + tl.sum(shifted, 0)
        total += tl.sum(tl.where(column < vocab, x, 0.0), 0)
        largest = updated
    normaliser = largest + tl.log(exponentials)
    target = tl.load(base + tl.load(targets + row)).to(tl.float32)
    tl.store(loss + row, normaliser - target)
    tl.store(lse + row, normaliser)
    tl.store(mean + row, total / vocab)


@triton.jit
def cross_entropy_grad_kernel(
    loss_grad, lse_grad, mean_grad, logits, targets, lse, logits_grad, row_stride, vocab,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write a block of one row's gradient; grid: (rows, blocks of the vocabulary)."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits + row * row_stride + column, mask=column < vocab, other=float("-inf"))
    p = tl.exp(x.to(tl.float32) - tl.load(lse + row))
    g = tl.load(loss_grad + row)
    result = p * (g + tl.load(lse_grad + row)) + tl.load(mean_grad + row) / vocab
    result -= tl.where(column == tl.load(targets + row), g, 0.0)
    result = result.to(logits_grad.dtype.element_ty)
    tl.store(logits_grad + row * vocab + column, result, mask=column < vocab)


@torch.library.custom_op(
    "lmlab::triton_cross_entropy",
    mutates_args=(),
    schema="(Tensor logits, Tensor targets) -> (Tensor, Tensor, Tensor)",
)
def triton_cross_entropy(
    logits: Float[Tensor, "rows vocab"], targets: Int[Tensor, "rows"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return of each row the loss, the log-sum-exp and the mean of its logits, in float32.

    Raises ValueError for a type that the kernel does not take.
    """
    check_dtype(logits.dtype)
    logits = logits.contiguous()
    loss, lse, mean = (logits.new_empty(len(logits), dtype=torch.float32) for _ in range(3))
    with torch.cuda.device_of(logits):
        cross_entropy_kernel[(len(logits),)](
            logits, targets.contiguous(), loss, lse, mean, logits.stride(0), logits.shape[1],
            BLOCK=_block(logits.shape[1]), num_warps=8,
        )  # fmt: skip
    return loss, lse, mean


@torch.library.custom_op("lmlab::triton_cross_entropy_backward", mutates_args=())
def triton_cross_entropy_backward(
    loss_grad: Tensor,
    lse_grad: Tensor,
    mean_grad: Tensor,
    logits: Tensor,
    targets: Tensor,
    lse: Tensor,
) -> Tensor:
    """Return the gradient of the logits."""
    logits = logits.contiguous()
    result = torch.empty_like(logits)
    rows, vocab = logits.shape
    block = _block(vocab)
    grads = (grad.contiguous() for grad in (loss_grad, lse_grad, mean_grad))
    with torch.cuda.device_of(logits):
        cross_entropy_grad_kernel[(rows, triton.cdiv(vocab, block))](
            *grads, logits, targets.contiguous(), lse, result, logits.stride(0), vocab,
            BLOCK=block, num_warps=8,
        )  # fmt: skip
    return result


@triton_cross_entropy.register_fake
def _(logits: Tensor, targets: Tensor) -> Any:
    return tuple(logits.new_empty(len(logits), dtype=torch.float32) for _ in range(3))


@triton_cross_entropy_backward.register_fake
def _(a: Tensor, b: Tensor, c: Tensor, logits: Tensor, targets: Tensor, lse: Tensor) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs, output[1])


def _differentiate(ctx: Any, *grads: Tensor) -> Any:
    return triton_cross_entropy_backward(*grads, *ctx.saved_tensors), None


triton_cross_entropy.register_autograd(_differentiate, setup_context=_save)
vars(triton_cross_entropy)["__name__"] = "triton_cross_entropy"  # operators of torch have none


def _block(vocab: int) -> int:
    return min(BLOCK, max(16, triton.next_power_of_2(vocab)))
