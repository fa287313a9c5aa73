"""The choices of `model/ffn`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lmlab.model.ffn.config import FFNConfig


def build_ffn(
    config: "FFNConfig", d_model: int, d_ff: int, device: "torch.device | str | None" = None
) -> "nn.Module":
    """Build the feed-forward of one layer."""
    from lmlab.model.ffn.glu import GLU
    from lmlab.model.ffn.mlp import MLP
    from lmlab.model.ffn.moe import MoE

    if config.kind == "mlp":
        return MLP(d_model, d_ff, config.activation, bias=config.bias, device=device)
    if config.kind == "glu":
        return GLU(d_model, d_ff, config.activation, device=device)
    return MoE(config, d_model, d_ff, device=device)
