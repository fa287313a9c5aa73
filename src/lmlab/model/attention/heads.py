"""What all kinds of attention share: projections into heads, QK norm, rotation, and back."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lmlab.model.attention.config import HeadsConfig
from lmlab.model.layers import Linear
from lmlab.model.norm import RMSNorm
from lmlab.model.position import rotate

Heads = Float[Tensor, "batch heads time d_k"]


class HeadProjections(nn.Module):
    """Queries, keys and values of each head; fewer heads of keys and values make it GQA or MQA."""

    def __init__(
        self,
        config: HeadsConfig,
        d_model: int,
        num_heads: int,
        head_dim: int,
        norm_eps: float,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.num_heads, self.head_dim = num_heads, head_dim
        self.num_kv_heads = config.num_kv_heads or num_heads
        width, kv_width = num_heads * head_dim, self.num_kv_heads * head_dim
        qkv_bias, output_bias = config.bias != "none", config.bias == "all"
        self.q_proj = Linear(d_model, width, bias=qkv_bias, device=device)
        self.k_proj = Linear(d_model, kv_width, bias=qkv_bias, device=device)
        self.v_proj = Linear(d_model, kv_width, bias=qkv_bias, device=device)
        self.output_proj = Linear(width, d_model, bias=output_bias, device=device)
        norm = RMSNorm if config.qk_norm else None
        self.q_norm = norm(head_dim, norm_eps, device=device) if norm else nn.Identity()
        self.k_norm = norm(head_dim, norm_eps, device=device) if norm else nn.Identity()

    def split(self, x: Float[Tensor, "batch time d_model"]) -> tuple[Heads, Heads, Heads]:
        """Return queries, keys and values, the first two normalised."""
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.head_dim))
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.q_norm(q).transpose(1, 2), self.k_norm(k).transpose(1, 2), v.transpose(1, 2)

    def merge(self, heads: Heads) -> Float[Tensor, "batch time d_model"]:
        """Return the output of all heads, projected together."""
        return self.output_proj(heads.transpose(1, 2).flatten(-2))


def rotate_heads(x: Heads, rotation: Tensor | None) -> Heads:
    """Rotate queries or keys; None: leave them."""
    if rotation is None:
        return x
    # Time before heads is how the projection left them in memory.
    return rotate(x.transpose(1, 2), rotation.unsqueeze(-3)).transpose(1, 2)
