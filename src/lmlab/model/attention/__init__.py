"""The choices of `model/attention`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from lmlab.model.attention.linear import LinearAttention
    from lmlab.model.attention.softmax import SoftmaxAttention
    from lmlab.model.config import ModelConfig


def build_attention(
    config: "ModelConfig", layer: int, device: "torch.device | str | None" = None
) -> "SoftmaxAttention | LinearAttention":
    """Build the attention of one layer, counted from 0."""
    from lmlab.model.attention import masks
    from lmlab.model.attention.config import (
        LinearAttentionConfig,
        SlidingWindowConfig,
        StridedAttentionConfig,
        of_layer,
    )
    from lmlab.model.attention.linear import LinearAttention
    from lmlab.model.attention.softmax import SoftmaxAttention

    chosen = of_layer(config.attention, layer)
    shape = (config.d_model, config.num_heads, config.attention_width, config.norm_eps)
    if isinstance(chosen, LinearAttentionConfig):
        return LinearAttention(chosen, *shape, device=device)
    mask: masks.Mask = masks.Causal()
    if isinstance(chosen, SlidingWindowConfig):
        mask = masks.SlidingWindow(chosen.window)
    elif isinstance(chosen, StridedAttentionConfig):
        mask = masks.Strided(chosen.stride, chosen.window)
    return SoftmaxAttention(chosen, mask, *shape, device=device)
