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

from lmlab.errors import ConfigError
from lmlab.kernels.blocked_attention import blocked_attention
from lmlab.model.attention.config import (
    AttentionBackend,
    AttentionConfig,
    HybridAttentionConfig,
    SoftmaxAttentionConfig,
)
from lmlab.model.attention.masks import AttentionPattern, Causal, Mask, SlidingWindow
from lmlab.model.config import ModelConfig
from lmlab.model.layers import scaled_dot_product_attention, softcap
from lmlab.model.products import upcast

Heads = Float[Tensor, "batch heads time d_k"]
FLEX_HEAD_DIM = 16
"""Smallest head width that FlexAttention supports on CUDA."""
BLOCKED_LENGTHS = range(32, 1025)
"""Lengths at which `blocked` was measured faster than `sdpa` (benchmarks/attention.py)."""


def eager(
    q: Heads, k: Heads, v: Heads, pattern: AttentionPattern, cap: float | None, dropout: float
) -> Heads:
    """Return attention by its formula, with all scores in memory: the definition."""
    mask = None if pattern.unrestricted else pattern.dense(q.shape[-2], q.device)
    group = q.shape[-3] // k.shape[-3]
    if group > 1:
        k, v = (repeat(x, "... h t d -> ... (h group) t d", group=group) for x in (k, v))
    return scaled_dot_product_attention(q, k, v, mask, logit_softcap=cap, dropout=dropout)


def sdpa(
    q: Heads, k: Heads, v: Heads, pattern: AttentionPattern, cap: float | None, dropout: float
) -> Heads:
    """Return attention by torch's fused kernels, without a soft-cap."""
    assert cap is None
    free = pattern.causal or pattern.unrestricted
    mask = None if free else pattern.dense(q.shape[-2], q.device)
    attend = partial(
        F.scaled_dot_product_attention,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=pattern.causal,
        enable_gqa=q.shape[-3] != k.shape[-3],
    )
    return upcast(attend, q, k, v)


def blocked(
    q: Heads, k: Heads, v: Heads, pattern: AttentionPattern, cap: float | None, dropout: float
) -> Heads:
    """Return causal or windowed attention by blocks of queries, on the CPU."""
    assert cap is None
    assert dropout == 0
    assert isinstance(pattern.mask, Causal | SlidingWindow)
    window = pattern.mask.window if isinstance(pattern.mask, SlidingWindow) else None
    return upcast(partial(blocked_attention, window=window), q, k, v)


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


BACKENDS = {"eager": eager, "sdpa": sdpa, "flex": flex, "blocked": blocked}


def check_backends(config: ModelConfig, device: torch.device) -> None:
    """Raise ConfigError when a configured backend cannot train on the device."""
    key = "model.attention"
    attentions: dict[str, AttentionConfig] = {key: config.attention}
    if isinstance(config.attention, HybridAttentionConfig):
        attentions = {f"{key}.members.{name}": a for name, a in config.attention.members.items()}
    for key, attention in attentions.items():
        if not isinstance(attention, SoftmaxAttentionConfig):
            continue
        problem, width = None, config.attention_width
        if attention.backend == "flex" and device.type != "cuda":
            problem = f"trains on CUDA only, the device is '{device}'"
        elif attention.backend == "flex" and width < FLEX_HEAD_DIM:
            problem = f"needs heads of width {FLEX_HEAD_DIM} or more, got {width}"
        elif attention.backend == "blocked" and device.type != "cpu":
            problem = f"runs on the CPU only, the device is '{device}'"
        if problem:
            raise ConfigError(
                f"{key}.backend", f"'{attention.backend}' {problem}; use auto or eager"
            )


def choose(
    backend: AttentionBackend,
    device: str,
    head_dim: int,
    pattern: AttentionPattern,
    time: int,
    cap: float | None,
    dropout: float,
) -> str:
    """Return the backend; `auto`: the fastest one on the device that supports the arguments.

    `blocked` leaves positions that are given, those of a cache or of padding, to `sdpa`.
    """
    ordered = pattern.queries is None
    if backend == "blocked" and not ordered:
        return "sdpa"
    if backend != "auto":
        return backend
    blocks = ordered and isinstance(pattern.mask, Causal | SlidingWindow)
    if blocks and device == "cpu" and time in BLOCKED_LENGTHS and cap is None and not dropout:
        return "blocked"
    flexible = device == "cuda" and head_dim >= FLEX_HEAD_DIM
    if flexible and not dropout and pattern.queries is None:
        # FlexAttention alone skips masked blocks, and soft-caps without all scores in memory.
        return "sdpa" if pattern.causal and cap is None else "flex"
    return "sdpa" if cap is None else "eager"
