"""Attention for the CPU by blocks of queries and keys, in the native core."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lmlab.kernels import native
from lmlab.kernels.once import once_differentiable

Heads = Float[Tensor, "batch heads time d_k"]


def blocked_attention(
    q: Heads,
    k: Heads,
    v: Heads,
    window: int | None = None,
    sharing: native.Sharing | None = None,
    rotation: native.Rotation | None = None,
) -> Heads:
    """Return causal attention, to the last `window` tokens if it is given (Dao 2023).

    With a rotation queries and keys are rotated first. Key heads may be fewer than query heads
    (GQA). The dtype is float32 or bfloat16; rotated numbers, scores, probabilities and sums are
    float32 in both. `sharing` says which tokens rows share, as in `native.attention`; gradients of
    keys that rows share are added up in the dtype.
    """
    out: Heads
    if not torch.compiler.is_compiling() and native.computes(q, k, v):
        out = _BlockedAttention.apply(q, k, v, window, sharing, rotation)
    else:
        out = torch.ops.lmlab.blocked_attention(q, k, v, window, sharing, rotation)[0]
    return out


class _BlockedAttention(torch.autograd.Function):
    """The operator without the cost of a registered one."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Heads,
        k: Heads,
        v: Heads,
        window: int | None,
        sharing: Tensor | None,
        rotation: Tensor | None,
    ) -> Heads:
        out, normalisers = native.attention(q, k, v, window, sharing, rotation)
        ctx.save_for_backward(q, k, v, out, normalisers)
        ctx.places = window, sharing, rotation
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        q, k, v, out, normalisers = ctx.saved_tensors
        args = (grad, q, k, v, out, normalisers, *ctx.places)
        return *native.attention_backward(*args, as_parts=True), None, None, None


@torch.library.custom_op("lmlab::blocked_attention", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int | None,
    sharing: Tensor | None = None,
    rotation: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    return native.attention(q, k, v, window, sharing, rotation)


@_forward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int | None,
    sharing: Tensor | None = None,
    rotation: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    rows, time = native.rows_of(q, sharing)
    return native.empty_like(q), q.new_empty(rows, q.shape[1], time, dtype=torch.float32)


@torch.library.custom_op("lmlab::blocked_attention_backward", mutates_args=())
def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    normalisers: Tensor,
    window: int | None,
    sharing: Tensor | None = None,
    rotation: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    return native.attention_backward(grad, q, k, v, out, normalisers, window, sharing, rotation)


@_backward.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    normalisers: Tensor,
    window: int | None,
    sharing: Tensor | None = None,
    rotation: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    return native.empty_like(q), native.empty_like(k), native.empty_like(v)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, *ctx.places = inputs
    ctx.save_for_backward(q, k, v, *output)


def _gradients(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    backward = torch.ops.lmlab.blocked_attention_backward
    dq, dk, dv = backward(grad, *saved, *ctx.places)
    return dq, dk, dv, None, None, None


torch.library.register_autograd("lmlab::blocked_attention", _gradients, setup_context=_setup)
