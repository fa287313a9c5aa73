"""Initial weights; `INITS` holds the choices of `model.init`, applied to the layers' weights."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from lmlab.model.config import InitKind, ModelConfig

RESIDUAL_OUTPUTS = ("output_proj.weight", "w2.weight", ".w2")
"""Suffixes of the names of weights whose output is added to the residual stream."""


def truncated_normal_(weight: Tensor, std: float) -> Tensor:
    """Fill with N(0, std^2) truncated at 3 standard deviations; no-op on the meta device."""
    if weight.device.type == "meta":
        return weight
    with torch.no_grad():
        return nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std)


def xavier(model: nn.Module, num_layers: int) -> None:
    """Keep the layers' N(0, 2 / (d_in + d_out)) truncated at 3 sigma."""


def gpt2(model: nn.Module, num_layers: int) -> None:
    """N(0, 0.02^2), residual outputs divided by sqrt(2 layers) (Radford et al. 2019)."""
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            nn.init.normal_(parameter, std=0.02)
    depth_scaled(model, num_layers)


def depth_scaled(model: nn.Module, num_layers: int) -> None:
    """Divide residual outputs by sqrt(2 layers), so the stream does not grow with depth."""
    _scale_residual_outputs(model, (2 * num_layers) ** -0.5)


def zero_residual(model: nn.Module, num_layers: int) -> None:
    """Set residual outputs to 0 (Zhang et al. 2019)."""
    _scale_residual_outputs(model, 0.0)


def _scale_residual_outputs(model: nn.Module, factor: float) -> None:
    with torch.no_grad():
        for weight in _residual_outputs(model):
            weight.mul_(factor)


def _residual_outputs(model: nn.Module) -> Iterator[nn.Parameter]:
    for name, parameter in model.named_parameters():
        if name.endswith(RESIDUAL_OUTPUTS):
            yield parameter


INITS: dict[InitKind, Callable[[nn.Module, int], None]] = {
    "xavier": xavier,
    "gpt2": gpt2,
    "depth_scaled": depth_scaled,
    "zero_residual": zero_residual,
}


def mup(model: nn.Module, config: ModelConfig) -> None:
    """Scale initial weights by width as muP does (Yang et al. 2022, table 3).

    The deviation of hidden weights falls as 1 / sqrt(width), that of the head as 1 / width; the
    others keep theirs. At the base width nothing changes.
    """
    factor = 1 / config.width_multiplier
    assert config.base_width is not None
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name == "lm_head.weight":
                # Xavier's deviation changes with the width by itself.
                rows, base = len(weight), config.base_width
                own = ((config.d_model + rows) / (base + rows)) ** 0.5
                weight.mul_(factor if config.init == "gpt2" else factor * own)
            elif config.init == "gpt2" and weight.ndim >= 2 and "embedding" not in name:
                weight.mul_(factor**0.5)
