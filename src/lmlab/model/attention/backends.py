"""Backends of attention with a softmax; `eager` is the definition the others are tested against."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from lmlab.kernels import native
from lmlab.kernels.blocked_attention import blocked_attention
from lmlab.kernels.flash_torch import tiled_attention
from lmlab.model.attention.masks import AttentionPattern, Causal, Mask, SlidingWindow
from lmlab.model.layers import scaled_dot_product_attention, softcap
from lmlab.model.position import Rotation
from lmlab.model.products import upcast

Heads = Float[Tensor, "batch heads time d_k"]
CONVERTED = 2**19
"""Keys and values, in elements, that are converted to float32 at a time: they fit into caches."""


def eager(
    q: Heads, k: Heads, v: Heads, pattern: AttentionPattern, cap: float | None, dropout: float
) -> Heads:
    """Return attention by its formula, with all scores in memory: the definition."""
    return _by_formula(q, k, v, _mask(q, pattern), cap, dropout)


def _mask(q: Heads, pattern: AttentionPattern) -> Tensor | None:
    return None if pattern.unrestricted else pattern.dense(q.shape[-2], q.device)


def _by_formula(
    q: Heads, k: Heads, v: Heads, mask: Tensor | None, cap: float | None, dropout: float
) -> Heads:
    group = q.shape[-3] // k.shape[-3]
    if group > 1:
        k, v = (repeat(x, "... h t d -> ... (h group) t d", group=group) for x in (k, v))
    return scaled_dot_product_attention(q, k, v, mask, logit_softcap=cap, dropout=dropout)


def by_rows(
    q: Heads, k: Heads, v: Heads, pattern: AttentionPattern, cap: float | None, dropout: float
) -> Heads:
    """Return `eager` attention, each row of the batch by itself.

    A row's result does not depend on the other rows, bit for bit: torch's batched products sum in
    an order that depends on the number of rows.
    """
    mask = _mask(q, pattern)
    if mask is not None and mask.ndim == 4:
        masks = mask.expand(len(q), *mask.shape[1:]).split(1)
    else:
        masks = [mask] * len(q)
    rows = zip(q.split(1), k.split(1), v.split(1), masks, strict=True)
    return torch.cat([_by_formula(*row, cap, dropout) for row in rows])


def sdpa(
    q: Heads, k: Heads, v: Heads, pattern: AttentionPattern, cap: float | None, dropout: float
) -> Heads:
    """Return attention by torch's fused kernels, without a soft-cap."""
    assert cap is None
    attend = partial(
        F.scaled_dot_product_attention,
        attn_mask=None if pattern.causal else _mask(q, pattern),
        dropout_p=dropout,
        is_causal=pattern.causal,
        enable_gqa=q.shape[-3] != k.shape[-3],
    )
    return upcast(attend, q, k, v)


def blocked(
    q: Heads,
    k: Heads,
    v: Heads,
    pattern: AttentionPattern,
    cap: float | None,
    dropout: float,
    sharing: native.Sharing | None = None,
    rotation: Rotation | None = None,
) -> Heads:
    """Return causal or windowed attention by the native core, on the CPU, which rotates as well.

    With `sharing`, of tokens (1, heads, tokens, d_k) in the rows that they stand in.
    """
    assert cap is None
    assert dropout == 0
    assert isinstance(pattern.mask, Causal | SlidingWindow)
    window = pattern.mask.window if isinstance(pattern.mask, SlidingWindow) else None
    q, k, v = _in_autocast(q, k, v)
    if rotation is not None and rotation.ndim == 3:
        rotation = rotation.unsqueeze(0)
    return blocked_attention(q, k, v, window, sharing, rotation)


def single(
    q: Heads, k: Heads, v: Heads, pattern: AttentionPattern, cap: float | None, dropout: float
) -> Heads:
    """Return attention of one query a row on the CPU, in float32, without dropout.

    A row's result does not depend on the other rows, bit for bit; without the native core, if the
    number of keys is a multiple of 64. torch's fused kernel sums differently in each thread.
    """
    assert dropout == 0
    mask = _mask(q, pattern)
    if _for_native_core(q, k, v):
        allowed = None if mask is None else mask.reshape(-1, k.shape[-2])
        return native.single_attention(q, k, v, allowed, cap)
    attend = partial(_single, cap=cap)
    if mask is not None:
        mask = mask.expand(len(q), 1, 1, k.shape[-2])
    if q.dtype == torch.float32:
        return attend(q, k, v, mask)
    size = max(1, CONVERTED // k[0].numel())
    masks = [None] * len(q) if mask is None else mask.split(size)
    parts = zip(q.split(size), k.split(size), v.split(size), masks, strict=False)
    return torch.cat([attend(a.float(), b.float(), c.float(), m) for a, b, c, m in parts]).to(q)


def _for_native_core(*args: Heads) -> bool:
    """Return whether the native core can compute attention of single queries: no gradients."""
    return (
        not torch.compiler.is_compiling()
        and native.computes(*args)
        and all(x.dtype in native.DTYPES and x.dtype == args[0].dtype for x in args)
        and not (torch.is_grad_enabled() and any(x.requires_grad for x in args))
    )


def _single(q: Heads, k: Heads, v: Heads, mask: Tensor | None, cap: float | None) -> Heads:
    group = q.shape[-3] // k.shape[-3]
    queries = q.reshape(len(q), -1, group, q.shape[-1]) * q.shape[-1] ** -0.5
    scores = queries @ k.mT
    if cap is not None:
        scores = softcap(scores, cap)
    if mask is not None:
        scores = torch.where(mask, scores, torch.finfo(scores.dtype).min)
    probabilities = torch.softmax(scores, dim=-1)
    if group == 1:
        return probabilities @ v
    # For several rows at once the order of the sums depends on the number of keys.
    return torch.cat([p @ v for p in probabilities.split(1, dim=-2)], dim=-2).view(q.shape)


def flex(
    q: Heads, k: Heads, v: Heads, pattern: AttentionPattern, cap: float | None, dropout: float
) -> Heads:
    """Return attention by FlexAttention, which skips masked blocks; without dropout."""
    assert dropout == 0
    compiled: Callable[..., Any] = flex_attention
    if q.device.type == "cuda":
        compiled = _compiled_flex()
    # Inside a compiled model FlexAttention cannot read the view that a rotation returns.
    out = compiled(
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        score_mod=None if cap is None else partial(_capped, cap),
        block_mask=_block_mask(pattern, q, k),
        enable_gqa=q.shape[-3] != k.shape[-3],
    )
    assert isinstance(out, Tensor)
    return out


def _capped(cap: float, score: Tensor, *where: Tensor) -> Tensor:
    return softcap(score, cap)


def _block_mask(pattern: AttentionPattern, q: Heads, k: Heads) -> BlockMask:
    if pattern.queries is None or pattern.keys is None:
        return _square_block_mask(pattern.mask, q.shape[-2], q.device)
    allowed = pattern.dense(q.shape[-2], q.device)  # positions of a cache change at every call
    batch = allowed.shape[0] if allowed.ndim == 4 else None
    allowed = allowed.view(-1, *allowed.shape[-2:])

    def mask_mod(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return allowed[b if batch else 0, i, j]

    return create_block_mask(mask_mod, batch, None, q.shape[-2], k.shape[-2], device=q.device)


@cache
def _square_block_mask(mask: Mask, time: int, device: torch.device) -> BlockMask:
    def mask_mod(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return mask.allows(i, j)

    with torch.inference_mode(False):  # what generation makes is kept for training
        return create_block_mask(mask_mod, None, None, time, time, device=device)


@cache
def _compiled_flex() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False)


def tiled(
    q: Heads, k: Heads, v: Heads, pattern: AttentionPattern, cap: float | None, dropout: float
) -> Heads:
    """Return attention by FlashAttention-2 in plain torch; without dropout, strides or a cache."""
    return _flash(tiled_attention, q, k, v, pattern, cap, dropout)


def triton(
    q: Heads, k: Heads, v: Heads, pattern: AttentionPattern, cap: float | None, dropout: float
) -> Heads:
    """Return attention by FlashAttention-2 in Triton; without dropout, strides or a cache."""
    from lmlab.kernels.flash_triton import triton_attention

    return _flash(triton_attention, q, k, v, pattern, cap, dropout)


def _flash(
    attend: Callable[..., tuple[Tensor, Tensor]],
    q: Heads,
    k: Heads,
    v: Heads,
    pattern: AttentionPattern,
    cap: float | None,
    dropout: float,
) -> Heads:
    assert dropout == 0
    assert pattern.queries is None
    window = pattern.mask.window if isinstance(pattern.mask, SlidingWindow) else None
    q, k, v = _in_autocast(q, k, v)
    return attend(q, k, v, True, window, cap)[0]


def _in_autocast(*args: Heads) -> tuple[Heads, ...]:
    """Return the arguments in the dtype of autocast, which does not convert those of operators."""
    kind = args[0].device.type
    if not torch.is_autocast_enabled(kind):
        return args
    return tuple(x.to(torch.get_autocast_dtype(kind)) for x in args)


BACKENDS: dict[str, Callable[..., Heads]] = {
    "eager": eager,
    "by_rows": by_rows,
    "sdpa": sdpa,
    "single": single,
    "flex": flex,
    "blocked": blocked,
    "tiled": tiled,
    "triton": triton,
}
