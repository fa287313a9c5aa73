"""Causal attention of every token to all before it, with grouped key and value heads."""

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lmlab.model.config import AttentionBackend
from lmlab.model.layers import Linear, scaled_dot_product_attention
from lmlab.model.position import Rotation, rotate


class FullAttention(nn.Module):
    """Multi-head causal attention (Vaswani et al. 2017); fewer key and value heads make it GQA or MQA."""

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        backend: AttentionBackend = "auto",
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads or num_heads
        self.backend = backend
        head_dim = d_model // num_heads
        self.q_proj = Linear(d_model, num_heads * head_dim, device=device)
        self.k_proj = Linear(d_model, self.num_kv_heads * head_dim, device=device)
        self.v_proj = Linear(d_model, self.num_kv_heads * head_dim, device=device)
        self.output_proj = Linear(num_heads * head_dim, d_model, device=device)

    def forward(
        self, x: Float[Tensor, "batch time d_model"], rotation: Rotation | None = None
    ) -> Float[Tensor, "batch time d_model"]:
        """Attend; `rotation` turns queries and keys to their positions."""
        q = rearrange(self.q_proj(x), "b t (h d) -> b h t d", h=self.num_heads)
        k = rearrange(self.k_proj(x), "b t (h d) -> b h t d", h=self.num_kv_heads)
        v = rearrange(self.v_proj(x), "b t (h d) -> b h t d", h=self.num_kv_heads)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        group = self.num_heads // self.num_kv_heads
        if group > 1:
            k = repeat(k, "b h t d -> b (h group) t d", group=group)
            v = repeat(v, "b h t d -> b (h group) t d", group=group)
        if self.backend == "written_out":
            time = x.shape[1]
            causal = torch.ones(time, time, dtype=torch.bool, device=x.device).tril()
            out = scaled_dot_product_attention(q, k, v, causal)
        else:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output_proj(rearrange(out, "b h t d -> b t (h d)"))
