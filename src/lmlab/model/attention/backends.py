"""How attention with a softmax is computed; `written_out` is what the others are checked with."""

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
from lmlab.model.attention.config import (
    AttentionBackend,
    AttentionConfig,
    HybridAttentionConfig,
    SoftmaxAttentionConfig,
)
from lmlab.model.attention.masks import Mask, Visibility
from lmlab.model.config import ModelConfig
from lmlab.model.layers import scaled_dot_product_attention, softcap
from lmlab.model.products import upcast

Heads = Float[Tensor, "batch heads time d_k"]
FLEX_HEAD_DIM = 16
"""The narrowest head that FlexAttention takes on CUDA."""


def written_out(
    q: Heads, k: Heads, v: Heads, visible: Visibility, cap: float | None, dropout: float
) -> Heads:
    """Attend as the formula says."""
    mask = None if visible.unrestricted else visible.dense(q.shape[-2], q.device)
    group = q.shape[1] // k.shape[1]
    if group > 1:
        k, v = (repeat(x, "b h t d -> b (h group) t d", group=group) for x in (k, v))
    return scaled_dot_product_attention(q, k, v, mask, logit_softcap=cap, dropout=dropout)


def sdpa(
    q: Heads, k: Heads, v: Heads, visible: Visibility, cap: float | None, dropout: float
) -> Heads:
    """Attend by torch's fused kernels, which know no soft-cap."""
    assert cap is None
    free = visible.causal or visible.unrestricted
    mask = None if free else visible.dense(q.shape[-2], q.device)
    attend = partial(
        F.scaled_dot_product_attention,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=visible.causal,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return upcast(attend, q, k, v)


def flex(
    q: Heads, k: Heads, v: Heads, visible: Visibility, cap: float | None, dropout: float
) -> Heads:
    """Attend by FlexAttention, which skips the blocks of a mask that nobody sees; no dropout."""
    assert dropout == 0
    compiled: Callable[..., Any] = flex_attention
    if q.device.type == "cuda":
        compiled = _compiled_flex()
    # Inside a compiled model it cannot read the view that a rotation leaves.
    out = compiled(
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        score_mod=None if cap is None else partial(_capped, cap),
        block_mask=_block_mask(visible, q, k),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    assert isinstance(out, Tensor)
    return out


def _capped(cap: float, score: Tensor, *where: Tensor) -> Tensor:
    return softcap(score, cap)


def _block_mask(visible: Visibility, q: Heads, k: Heads) -> BlockMask:
    if visible.queries is None or visible.keys is None:
        return _square_block_mask(visible.mask, q.shape[-2], q.device)
    seen = visible.dense(q.shape[-2], q.device)  # positions of a cache: not worth remembering
    batch = seen.shape[0] if seen.ndim == 4 else None
    seen = seen.view(-1, *seen.shape[-2:])

    def mask_mod(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return seen[b if batch else 0, i, j]

    return create_block_mask(mask_mod, batch, None, q.shape[-2], k.shape[-2], device=q.device)


@cache
def _square_block_mask(mask: Mask, time: int, device: torch.device) -> BlockMask:
    def mask_mod(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return mask.sees(i, j)

    return create_block_mask(mask_mod, None, None, time, time, device=device)


@cache
def _compiled_flex() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False)


BACKENDS = {"written_out": written_out, "sdpa": sdpa, "flex": flex}


def check_backends(config: ModelConfig, device: torch.device) -> None:
    """Raise ConfigError when a chosen back end cannot train on the device."""
    key = "model.attention"
    attentions: dict[str, AttentionConfig] = {key: config.attention}
    if isinstance(config.attention, HybridAttentionConfig):
        attentions = {f"{key}.members.{name}": a for name, a in config.attention.members.items()}
    for key, attention in attentions.items():
        if not isinstance(attention, SoftmaxAttentionConfig) or attention.backend != "flex":
            continue
        problem = None
        if device.type != "cuda":
            problem = f"trains on CUDA only, and the device is '{device}'"
        elif config.attention_width < FLEX_HEAD_DIM:
            problem = f"takes heads of at least {FLEX_HEAD_DIM}, got {config.attention_width}"
        if problem:
            raise ConfigError(f"{key}.backend", f"'flex' {problem}; take auto or written_out")


def choose(
    backend: AttentionBackend,
    device: str,
    head_dim: int,
    visible: Visibility,
    cap: float | None,
    dropout: float,
) -> str:
    """Return the back end; `auto` takes the fastest on the device that can do what is asked."""
    if backend != "auto":
        return backend
    flexible = device == "cuda" and head_dim >= FLEX_HEAD_DIM
    if flexible and not dropout and visible.queries is None:
        # Only here does a block that nobody sees cost nothing, and a cap no matrix in memory.
        return "sdpa" if visible.causal and cap is None else "flex"
    return "sdpa" if cap is None else "written_out"
