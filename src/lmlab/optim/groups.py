"""Parameter groups: with weight decay, without, and for Muon."""

from typing import Any

from torch import nn


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    decay_embeddings: bool = False,
    muon: bool = False,
) -> list[dict[str, Any]]:
    """Return the groups with and without decay; norms and biases (below 2-D) never decay.

    With `muon` all matrices except embeddings and the head form their own group.
    Raises AssertionError unless every parameter is in exactly one group.
    """
    hidden: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        embedding = "embedding" in name
        decays = parameter.ndim >= 2 and (decay_embeddings or not embedding)
        if muon and decays and not embedding and not name.startswith("lm_head"):
            hidden.append(parameter)
        else:
            (decayed if decays else others).append(parameter)
    grouped = [id(p) for p in hidden + decayed + others]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    groups: list[dict[str, Any]] = [
        {"params": hidden, "weight_decay": weight_decay, "muon": True},
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
