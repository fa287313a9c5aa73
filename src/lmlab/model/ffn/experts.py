"""Experts applied to tokens that are sorted by expert: the definition, and faster ones."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode

from lmlab.kernels.once import once_differentiable
from lmlab.model.ffn.glu import gated
from lmlab.model.layers import full_precision
from lmlab.model.products import Product, linear, multiplies_by_torch
from lmlab.processor import computed_here


def looped_experts(
    x: Float[Tensor, "choices d_model"],
    counts: Int[Tensor, "experts"],
    w1: Float[Tensor, "experts d_ff d_model"],
    w2: Float[Tensor, "experts d_model d_ff"],
    w3: Float[Tensor, "experts d_ff d_model"],
    activation: Callable[[Tensor], Tensor],
    product: Product = linear,
) -> Float[Tensor, "choices d_model"]:
    """Apply each expert to its slice of `x`, in a loop over experts."""
    # Without data there are no counts; the cost does not depend on them.
    sizes = _even(len(x), len(w1)) if without_data(x) else counts.tolist()
    return torch.cat(
        [
            product(gated(activation, product(part, a), product(part, c)), b)
            for part, a, b, c in zip(
                x.split(sizes), w1.unbind(), w2.unbind(), w3.unbind(), strict=True
            )
        ]
    )


def grouped_experts(
    x: Float[Tensor, "choices d_model"],
    counts: Int[Tensor, "experts"],
    w1: Float[Tensor, "experts d_ff d_model"],
    w2: Float[Tensor, "experts d_model d_ff"],
    w3: Float[Tensor, "experts d_ff d_model"],
    activation: Callable[[Tensor], Tensor],
) -> Float[Tensor, "choices d_model"]:
    """Apply each expert to its slice of `x`: three grouped products, without a synchronization."""
    ends = counts.cumsum(0).to(torch.int32)
    dtype = _dtype(x)
    x, w1, w2, w3 = (t.to(dtype) for t in (x, w1, w2, w3))
    hidden = activation(F.grouped_mm(x, w1.mT, offs=ends)) * F.grouped_mm(x, w3.mT, offs=ends)
    return F.grouped_mm(hidden, w2.mT, offs=ends)


def groupable(
    x: Float[Tensor, "choices d_model"], w2: Float[Tensor, "experts d_model d_ff"]
) -> bool:
    """Return whether `grouped_experts` supports the types and shapes.

    torch needs rows aligned to 16 bytes, compiled models bfloat16; others have no fast kernel.
    """
    return _dtype(x) == torch.bfloat16 and all(width % 8 == 0 for width in w2.shape[1:])


def _dtype(x: Tensor) -> torch.dtype:
    """Return the type in which products with `x` are computed."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def joined_experts(
    x: Float[Tensor, "choices d_model"],
    counts: Int[Tensor, "experts"],
    w1: Float[Tensor, "experts d_ff d_model"],
    w2: Float[Tensor, "experts d_model d_ff"],
    w3: Float[Tensor, "experts d_ff d_model"],
    activation: Callable[[Tensor], Tensor],
) -> Float[Tensor, "choices d_model"]:
    """Apply each expert to its slice of `x`, on the CPU, without copies of slices or gradients."""
    dtype, sizes = _dtype(x), counts.tolist()
    x, w1, w2, w3 = (t.to(dtype) for t in (x, w1, w2, w3))
    with full_precision(x.device):
        gate, value = (_Products.apply(x, w, sizes) for w in (w1, w3))
        y = _Products.apply(gated(activation, gate, value), w2, sizes)
    assert isinstance(y, Tensor)
    return y


def joinable(x: Float[Tensor, "choices d_model"], *weights: Tensor) -> bool:
    """Return whether training can take `joined_experts`.

    Counters of FLOPs know torch's own products only, compilers trace the definition.
    """
    return (
        computed_here(x)
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and _get_current_dispatch_mode() is None
        and all(type(each) in (Tensor, nn.Parameter) for each in (x, *weights))
        and multiplies_by_torch(x.device, _dtype(x))
    )


class _Products(torch.autograd.Function):
    """`x_e W_e^T` of each expert's slice, written into one tensor, as are the gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, sizes: list[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.sizes = sizes
        y = x.new_empty(len(x), weight.shape[1])
        for part, matrix, out in zip(x.split(sizes), weight, y.split(sizes), strict=True):
            torch.mm(part, matrix.mT, out=out)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        x_grad, weight_grad = torch.empty_like(x), torch.empty_like(weight)
        parts = (grad.split(ctx.sizes), x.split(ctx.sizes), weight)
        outs = (x_grad.split(ctx.sizes), weight_grad)
        for part, inputs, matrix, out, matrix_out in zip(*parts, *outs, strict=True):
            torch.mm(part, matrix, out=out)
            torch.mm(part.mT, inputs, out=matrix_out)
        return x_grad, weight_grad, None


def without_data(x: Tensor) -> bool:
    """Return whether `x` has a shape only: it is on the meta device, or a fake tensor."""
    return x.is_meta or isinstance(x, FakeTensor)


def _even(total: int, parts: int) -> list[int]:
    return [total // parts + (i < total % parts) for i in range(parts)]
