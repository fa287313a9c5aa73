"""Attention for the CPU by blocks of queries, whose scores stay in the processor's cache."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 64
"""Queries at a time."""
CACHED_SCORES = 64 * 4096
"""Scores of a thread at a time: a megabyte of float32, which the level 2 cache holds."""

Heads = Float[Tensor, "batch heads time d_k"]


def blocked_attention(q: Heads, k: Heads, v: Heads, window: int | None = None) -> Heads:
    """Return causal attention, to the last `window` tokens if it is given.

    Key heads may be fewer than query heads (GQA). Scores and sums are float32, the probabilities
    and their gradients are in the dtype of `q`. Unlike FlashAttention (Dao et al. 2022) it saves
    the probabilities: the backward pass does not compute them again.
    """
    saves = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    return torch.ops.lmlab.blocked_attention(q, k, v, window, saves)[0]


_without_autocast = torch.autocast("cpu", enabled=False)
"""Operators run under the autocast of their caller, which would round scores to bfloat16."""


def _blocks(time: int, window: int | None) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield the queries and the keys of each block, and what is added to the scores."""
    for first in range(0, time, BLOCK):
        last = min(time, first + BLOCK)
        start = 0 if window is None else max(0, first - window + 1)
        distance = torch.arange(first, last)[:, None] - torch.arange(start, last)
        hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
        mask = torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf"))
        yield slice(first, last), slice(start, last), mask


def _groups(q: Tensor, k: Tensor) -> tuple[int, list[slice]]:
    """Return query heads for each key head, and slices of key heads that are computed together."""
    per_key = q.shape[1] // k.shape[1]
    scores = BLOCK * q.shape[2] * per_key
    size = torch.get_num_threads() * max(1, CACHED_SCORES // scores)
    total = k.shape[0] * k.shape[1]
    return per_key, [slice(at, at + size) for at in range(0, total, size)]


def _rows(x: Tensor) -> Tensor:
    """Return (heads, group * time, d) of (heads, group, time, d)."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


@torch.library.custom_op("lmlab::blocked_attention", mutates_args=())
@_without_autocast  # type: ignore[untyped-decorator]
def _forward(
    q: Tensor, k: Tensor, v: Tensor, window: int | None, saves: bool
) -> tuple[Tensor, Tensor]:
    per_key, groups = _groups(q, k)
    shape, scale = q.shape, q.shape[-1] ** -0.5
    q = q.reshape(-1, per_key, *q.shape[2:])
    k, v = (x.reshape(-1, *x.shape[2:]) for x in (k, v))
    out = torch.empty(q.shape, dtype=v.dtype)
    blocks = list(_blocks(q.shape[2], window))
    saved = []
    for heads in groups:
        keys = k[heads].float().mT
        for queries, visible, mask in blocks:
            rows = _rows(q[heads, :, queries]).float() * scale
            scores = rows @ keys[:, :, visible]
            scores.unflatten(1, (per_key, -1)).add_(mask)
            probabilities = torch.softmax(scores, dim=-1).to(v.dtype)
            out[heads, :, queries] = (probabilities @ v[heads, visible]).unflatten(1, (per_key, -1))
            if saves:
                saved.append(probabilities.flatten())
    return out.view(shape), torch.cat(saved) if saved else out.new_empty(0)


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, window: int | None, saves: bool) -> tuple[Tensor, Tensor]:
    sizes = [mask.numel() for _, _, mask in _blocks(q.shape[2], window)] if saves else []
    return torch.empty_like(q, memory_format=torch.contiguous_format), v.new_empty(
        q.shape[0] * q.shape[1] * sum(sizes)
    )


@torch.library.custom_op("lmlab::blocked_attention_backward", mutates_args=())
@_without_autocast  # type: ignore[untyped-decorator]
def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, saved: Tensor, window: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    per_key, groups = _groups(q, k)
    shapes, scale = (q.shape, k.shape, v.shape), q.shape[-1] ** -0.5
    # sum_j P_ij dP_ij = dO_i . O_i (Dao et al. 2022, appendix B.4)
    dots = (grad.float() * out.float()).sum(dim=-1, keepdim=True)
    q, grad, dots = (x.reshape(-1, per_key, *x.shape[2:]) for x in (q, grad, dots))
    k, v = (x.reshape(-1, *x.shape[2:]) for x in (k, v))
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v))
    blocks, at = list(_blocks(q.shape[2], window)), 0
    for heads in groups:
        dk_sum, dv_sum = (torch.zeros(x[heads].shape) for x in (k, v))
        for queries, visible, mask in blocks:
            size = len(k[heads]) * per_key * mask.numel()
            p = saved[at : at + size].view(len(k[heads]), -1, mask.shape[1])
            at += size
            rows, row_grads = _rows(q[heads, :, queries]), _rows(grad[heads, :, queries])
            dv_sum[:, visible] += p.mT @ row_grads
            dp = row_grads @ v[heads, visible].mT
            ds = torch.sub(dp, _rows(dots[heads, :, queries])).mul_(p).mul_(scale).to(q.dtype)
            dq[heads, :, queries] = (ds @ k[heads, visible]).unflatten(1, (per_key, -1))
            dk_sum[:, visible] += ds.mT @ rows
        dk[heads], dv[heads] = dk_sum, dv_sum
    return dq.view(shapes[0]), dk.view(shapes[1]), dv.view(shapes[2])


@_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, saved: Tensor, window: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    return dq, dk, dv


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, window, _ = inputs
    ctx.save_for_backward(q, k, v, *output)
    ctx.window = window


def _gradients(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, out, saved = ctx.saved_tensors
    dq, dk, dv = torch.ops.lmlab.blocked_attention_backward(grad, q, k, v, out, saved, ctx.window)
    return dq, dk, dv, None, None


torch.library.register_autograd("lmlab::blocked_attention", _gradients, setup_context=_setup)
