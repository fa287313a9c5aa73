"""Which parameters are decayed."""

from typing import Any

from torch import nn


def parameter_groups(
    model: nn.Module, weight_decay: float, decay_embeddings: bool = False
) -> list[dict[str, Any]]:
    """Return two groups, with and without decay; norms and biases (below 2-D) never decay.

    Raises AssertionError unless every parameter is in exactly one group.
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        embedding = "embedding" in name
        decays = parameter.ndim >= 2 and (decay_embeddings or not embedding)
        (decayed if decays else others).append(parameter)
    grouped = [id(p) for p in decayed + others]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    return [
        {"params": params, "weight_decay": decay}
        for params, decay in ((decayed, weight_decay), (others, 0.0))
        if params
    ]
