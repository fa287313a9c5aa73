"""Matrix products in float32 by oneDNN, which has kernels for processors of every vendor."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

AVAILABLE = torch.backends.mkldnn.is_available()
ROW_MULTIPLE = 16
"""Rows of products whose number differs from step to step are padded to a multiple of it: oneDNN
makes a kernel for each number, in milliseconds, and keeps the last 1,024, a megabyte or so each."""


def has_onednn(device: torch.device) -> bool:
    """Return whether oneDNN computes on the device."""
    return device.type == "cpu" and AVAILABLE


def onednn_linear(
    x: Float[Tensor, "... d_in"], weight: Float[Tensor, "d_out d_in"]
) -> Float[Tensor, "... d_out"]:
    """Return `x W^T` without gradients; each row is summed as if it were alone.

    `weight` may be reordered for oneDNN.
    """
    rows = x.reshape(-1, x.shape[-1])
    alone = len(rows) == 1  # oneDNN sums a single row in another order than several
    if alone:
        rows = rows.expand(2, -1)
    y = _onednn(rows, weight)
    return (y[:1] if alone else y).view(*x.shape[:-1], -1)


def onednn_product(a: Float[Tensor, "m k"], b: Float[Tensor, "n k"]) -> Float[Tensor, "m n"]:
    """Return `a b^T` with gradients of any order, compiled or not."""
    y: Tensor = torch.ops.lmlab.onednn_product(a, b)
    return y


def _onednn(a: Tensor, b: Tensor) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return y


# The compiler takes oneDNN's operator with constant weights only.
@torch.library.custom_op("lmlab::onednn_product", mutates_args=())
def _product(a: Tensor, b: Tensor) -> Tensor:
    return _onednn(a, b)


@_product.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[0])


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    a, b = ctx.saved_tensors
    a_needed, b_needed = ctx.needs_input_grad
    a_grad = onednn_product(grad, b.mT) if a_needed else None
    if not b_needed:
        return a_grad, None
    # oneDNN copies the second factor, which is transposed: faster when it becomes the wider matrix.
    if len(b) > b.shape[1]:
        return a_grad, onednn_product(a.mT, grad.mT).mT
    return a_grad, onednn_product(grad.mT, a.mT)


torch.library.register_autograd("lmlab::onednn_product", _gradients, setup_context=_setup)
