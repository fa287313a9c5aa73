"""The choices of `model/ffn`."""

import torch
from torch import nn

from lmlab.model.config import FFNConfig
from lmlab.model.ffn.glu import GLU


def build_ffn(
    config: FFNConfig, d_model: int, d_ff: int | None, device: torch.device | str | None = None
) -> nn.Module:
    """Build one layer's feed-forward; `d_ff` None derives the width that the choice is known for."""
    return GLU(d_model, d_ff or gated_width(d_model), config.activation, device=device)


def gated_width(d_model: int) -> int:
    """Return 8/3 d_model rounded up to a multiple of 64: as many weights as 4 d_model without a gate."""
    return -(-8 * d_model // (3 * 64)) * 64
