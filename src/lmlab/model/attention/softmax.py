"""Attention with a softmax, under any mask and by any back end."""

import torch
from jaxtyping import Float
from torch import Tensor

from lmlab.model.attention.backends import BACKENDS, choose
from lmlab.model.attention.config import AttentionBackend, SoftmaxAttentionConfig
from lmlab.model.attention.heads import HeadProjections, rotate_heads
from lmlab.model.attention.masks import Mask, Visibility
from lmlab.model.cache import KeyValueCache
from lmlab.model.context import Context


class SoftmaxAttention(HeadProjections):
    """Multi-head attention to what a mask shows (Vaswani et al. 2017, section 3.2)."""

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
        """Return an empty cache, which keeps what a later token can see."""
        return KeyValueCache(self.mask)

    def cache_elements(self, length: int) -> int:
        """Return the numbers that a cache must hold for one sequence of `length` tokens."""
        return 2 * self.num_kv_heads * self.head_dim * self.mask.kept(length)

    def forward(
        self, x: Float[Tensor, "batch time d_model"], context: Context
    ) -> Float[Tensor, "batch time d_model"]:
        """Attend to the tokens of `x` and of the cache."""
        q, k, v = self.split(x)
        q, k = rotate_heads(q, context.rotation), rotate_heads(k, context.rotation)
        visible = Visibility(self.mask, context.positions, context.positions)
        if context.cache is not None:
            assert isinstance(context.cache, KeyValueCache)
            k, v = context.cache.extend(k, v)
            visible = context.cache.slots.visible
        dropout = self.dropout if self.training else 0.0
        cap, device = self.logit_softcap, x.device.type
        backend = choose(self.backend, device, self.head_dim, visible, cap, dropout)
        return self.merge(BACKENDS[backend](q, k, v, visible, cap, dropout))
