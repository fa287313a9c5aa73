"""Parameters and FLOPs of a model, counted by running it on the meta device."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def forward_flops(model: nn.Module, context_length: int) -> int:
    """Return the matrix-product FLOPs of one sequence's forward pass of a model on meta.

    A multiplication and an addition count as two; scores count in full, causal or not.
    """
    ids = torch.zeros(1, context_length, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    return int(counter.get_total_flops())
