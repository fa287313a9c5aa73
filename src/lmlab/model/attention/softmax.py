"""Attention with a softmax, for every mask and backend."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lmlab.model.attention.backends import BACKENDS
from lmlab.model.attention.choice import choose
from lmlab.model.attention.config import AttentionBackend, SoftmaxAttentionConfig
from lmlab.model.attention.heads import HeadProjections, from_rows, in_rows, rotate_heads
from lmlab.model.attention.masks import AttentionPattern, Mask
from lmlab.model.cache import KeyValueCache
from lmlab.model.context import Context


class SoftmaxAttention(HeadProjections):
    """Multi-head attention under a mask (Vaswani et al. 2017, section 3.2)."""

    def __init__(
        self,
        config: SoftmaxAttentionConfig,
        mask: Mask,
        d_model: int,
        num_heads: int,
        head_dim: int,
        norm_eps: float,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(config, d_model, num_heads, head_dim, norm_eps, device=device)
        self.mask = mask
        self.logit_softcap, self.dropout = config.logit_softcap, config.dropout
        self.backend: AttentionBackend = config.backend

    def new_cache(self) -> KeyValueCache:
        """Return an empty cache; it reuses the slots of keys hidden from all later tokens."""
        return KeyValueCache(self.mask)

    def cache_elements(self, length: int) -> int:
        """Return the number of elements in the cache of one sequence of `length` tokens."""
        return 2 * self.num_kv_heads * self.head_dim * self.mask.kept(length)

    def attend(
        self, x: Float[Tensor, "batch time d_model"], context: Context
    ) -> Float[Tensor, "batch time d_model"]:
        """Return the attention's output over the tokens of the cache and of `x`."""
        q, k, v = self.split(x)
        rotation, rows = context.rotation, context.rows
        positions = context.positions if rows is None else None
        pattern = AttentionPattern(self.mask, positions, positions, segments=context.segments)
        if context.cache is not None:
            assert isinstance(context.cache, KeyValueCache)
            q, k, rotation = rotate_heads(q, rotation), rotate_heads(k, rotation), None
            k, v = context.cache.extend(k, v)
            pattern = context.cache.slots.pattern
        dropout = self.dropout if self.training else 0.0
        cap, device = self.logit_softcap, x.device.type
        backend = choose(
            self.backend,
            device,
            self.head_dim,
            pattern,
            q.shape[2] if rows is None else rows.token.shape[1],
            cap,
            dropout,
            v.dtype,
        )
        attend = partial(BACKENDS[backend], pattern=pattern, cap=cap, dropout=dropout)
        if backend == "blocked":
            sharing = None if rows is None else rows.sharing
            return self.merge(attend(q, k, v, sharing=sharing, rotation=rotation))
        q, k = rotate_heads(q, rotation), rotate_heads(k, rotation)
        if rows is None:
            return self.merge(attend(q, k, v))
        whole = attend(*(in_rows(heads, rows) for heads in (q, k, v)))
        return self.merge(from_rows(whole, rows))
