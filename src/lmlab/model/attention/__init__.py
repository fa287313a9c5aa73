"""The choices of `model/attention`."""

import torch
from torch import nn

from lmlab.model.attention.full import FullAttention
from lmlab.model.config import AttentionConfig


def build_attention(
    config: AttentionConfig,
    d_model: int,
    num_heads: int,
    device: torch.device | str | None = None,
) -> nn.Module:
    """Build one layer's attention."""
    return FullAttention(
        d_model,
        num_heads,
        num_kv_heads=config.num_kv_heads or num_heads,
        backend=config.backend,
        device=device,
    )
