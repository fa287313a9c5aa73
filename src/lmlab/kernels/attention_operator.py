"""Attention as operators of torch: checks of the arguments, fake results, and gradients."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from lmlab.kernels.once import once_differentiable

Heads = Float[Tensor, "*batch heads time d"]
LogSumExp = Float[Tensor, "*batch heads time"]


class Forward(Protocol):
    """The forward pass of attention."""

    def __call__(
        self,
        q: Heads,
        k: Heads,
        v: Heads,
        causal: bool = False,
        window: int | None = None,
        softcap: float | None = None,
    ) -> tuple[Heads, LogSumExp]:
        """Return the output and L, the logarithm of the softmax's denominator."""


class Backward(Protocol):
    """The backward pass of attention."""

    def __call__(
        self,
        grad: Heads,
        q: Heads,
        k: Heads,
        v: Heads,
        out: Heads,
        lse: LogSumExp,
        causal: bool = False,
        window: int | None = None,
        softcap: float | None = None,
    ) -> tuple[Heads, Heads, Heads]:
        """Return the gradients of q, k and v from what the forward pass saved."""


_MASK = "bool causal=False, SymInt? window=None, float? softcap=None"
_FORWARD = f"(Tensor q, Tensor k, Tensor v, {_MASK}) -> (Tensor, Tensor)"
_BACKWARD = (
    "(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
    f"{_MASK}) -> (Tensor, Tensor, Tensor)"
)


def check_arguments(
    q: Heads,
    k: Heads,
    v: Heads,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
) -> None:
    """Raise ValueError for shapes, types and options that tiled attention does not take."""
    if q.ndim < 2 or k.shape != v.shape or q.ndim != k.ndim or q.shape[-1] != k.shape[-1]:
        raise ValueError(
            "attention needs q (..., time, d) and k, v of one shape (..., keys, d), got "
            f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    grouped = q.ndim > 2 and q.shape[:-3] == k.shape[:-3] and q.shape[-3] % k.shape[-3] == 0
    if not grouped and q.shape[:-2] != k.shape[:-2]:
        raise ValueError(
            f"{tuple(k.shape[:-2])} heads of keys do not divide {tuple(q.shape[:-2])} of queries"
        )
    if not q.dtype == k.dtype == v.dtype or not q.is_floating_point():
        raise ValueError(f"q, k and v need one type, got {q.dtype}, {k.dtype} and {v.dtype}")
    if causal and q.shape[-2] != k.shape[-2]:
        raise ValueError(
            "causal attention needs as many keys as queries, got "
            f"{k.shape[-2]} keys and {q.shape[-2]} queries"
        )
    if window is not None and (window < 1 or not causal):
        raise ValueError(f"a window needs causal=True and 1 token or more, got window={window}")
    if softcap is not None and softcap <= 0:
        raise ValueError(f"softcap must be positive, got {softcap}")


def attention_operator(
    name: str, forward: Forward, backward: Backward
) -> tuple[Callable[..., tuple[Heads, LogSumExp]], Callable[..., tuple[Heads, Heads, Heads]]]:
    """Register `lmlab::NAME` and `lmlab::NAME_backward`, and return both.

    The first returns the output and L and is differentiable in q, k and v. The second returns their
    gradients. Both have fake implementations, so `torch.compile` does not break the graph at them.
    """

    def run_forward(*args: Any) -> tuple[Heads, LogSumExp]:
        check_arguments(*args)
        with torch.cuda.device_of(args[0]), torch.autocast(args[0].device.type, enabled=False):
            return forward(*args)

    def run_backward(*args: Any) -> tuple[Heads, Heads, Heads]:
        with torch.cuda.device_of(args[0]), torch.autocast(args[0].device.type, enabled=False):
            return backward(*args)

    def fake_forward(q: Heads, k: Heads, v: Heads, *mask: Any) -> tuple[Heads, LogSumExp]:
        check_arguments(q, k, v, *mask)
        return torch.empty_like(q), new_lse(q)

    def fake_backward(grad: Heads, q: Heads, k: Heads, v: Heads, *rest: Any) -> Any:
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)

    def save(ctx: Any, inputs: Any, output: Any) -> None:
        q, k, v, *ctx.mask = inputs
        ctx.save_for_backward(q, k, v, *output)
        ctx.mark_non_differentiable(output[1])

    def differentiate(ctx: Any, grad: Tensor, _: Tensor) -> Any:
        return *backward_op(grad, *ctx.saved_tensors, *ctx.mask), None, None, None

    library = torch.library
    forward_op = library.custom_op(f"lmlab::{name}", run_forward, mutates_args=(), schema=_FORWARD)
    backward_op = library.custom_op(
        f"lmlab::{name}_backward", run_backward, mutates_args=(), schema=_BACKWARD
    )
    forward_op.register_fake(fake_forward)
    backward_op.register_fake(fake_backward)
    forward_op.register_autograd(differentiate, setup_context=save)
    vars(forward_op)["__name__"] = name  # operators of torch have none
    return forward_op, backward_op


def attention_function(
    name: str,
    attend: Callable[..., tuple[Heads, LogSumExp]],
    differentiate: Callable[..., tuple[Heads, Heads, Heads]],
) -> type[torch.autograd.Function]:
    """Return a class with `apply(q, k, v, is_causal)`, which saves q, k, v, the output and L."""

    class AttentionFunction(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, q: Heads, k: Heads, v: Heads, is_causal: bool = False) -> Heads:
            out, lse = attend(q, k, v, is_causal)
            ctx.save_for_backward(q, k, v, out, lse)
            ctx.is_causal = is_causal
            return out

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, grad: Tensor) -> Any:
            return *differentiate(grad, *ctx.saved_tensors, ctx.is_causal), None

    AttentionFunction.__name__ = AttentionFunction.__qualname__ = name
    return AttentionFunction


def new_lse(q: Heads) -> LogSumExp:
    """Return an empty L for queries: contiguous, float32 (float64 for float64)."""
    return q.new_empty(q.shape[:-1], dtype=accumulator(q.dtype))


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the type of sums over numbers of `dtype`."""
    return torch.promote_types(dtype, torch.float32)
