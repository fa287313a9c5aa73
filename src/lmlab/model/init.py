"""Initial weights."""

import torch
from torch import Tensor, nn


def truncated_normal_(weight: Tensor, std: float) -> Tensor:
    """Fill with N(0, std^2) truncated at 3 standard deviations; nothing to do on the meta device."""
    if weight.device.type == "meta":
        return weight
    with torch.no_grad():
        return nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std)
