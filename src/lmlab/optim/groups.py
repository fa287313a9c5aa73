"""Parameter groups: with weight decay, without, and for Muon; and their learning rates in muP."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

Role = Literal["hidden", "head", "other"]
OptimizerKind = Literal["adamw", "muon", "sgd"]
EXPONENTS: dict[OptimizerKind, dict[Role, float]] = {
    "adamw": {"hidden": -1, "head": -1, "other": 0},
    # Updates have a fixed size for each element and full rank: their spectral norm is to be the
    # same at all widths (Yang et al. 2023).
    "muon": {"hidden": -0.5, "head": -1, "other": 0},
    "sgd": {"hidden": 0, "head": -1, "other": 1},
}
"""Powers of the width by which muP scales learning rates (Yang et al. 2022, table 3)."""
UNSCALED: dict[Role, float] = {"hidden": 1.0, "head": 1.0, "other": 1.0}


def lr_scales(kind: OptimizerKind, width_multiplier: float) -> dict[Role, float]:
    """Return what muP multiplies the learning rate of each role with; 1 at the base width."""
    return {role: width_multiplier**power for role, power in EXPONENTS[kind].items()}


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    decay_embeddings: bool = False,
    muon: bool = False,
    scales: Mapping[Role, float] = UNSCALED,
) -> list[dict[str, Any]]:
    """Return the groups with and without decay; norms and biases (below 2-D) never decay.

    With `muon` all matrices except embeddings and the head form their own group. A group whose
    learning rate is scaled has `lr_scale`, and a weight decay divided by it: what decays in a step
    is the same at all widths.
    """
    found: dict[tuple[int, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        role = role_of(name, parameter)
        decays = parameter.ndim >= 2 and (decay_embeddings or "embedding" not in name)
        order = 0 if muon and role == "hidden" else 1 if decays else 2
        found.setdefault((order, scales[role]), []).append(parameter)
    groups = []
    for (order, scale), parameters in sorted(found.items(), key=lambda item: item[0][0]):
        group: dict[str, Any] = {"params": parameters, "weight_decay": 0.0}
        if order < 2:
            group["weight_decay"] = weight_decay / scale
        if order == 0:
            group["muon"] = True
        if scale != 1:
            group["lr_scale"] = scale
        groups.append(group)
    return groups


def role_of(name: str, parameter: nn.Parameter) -> Role:
    """Return a parameter's role: hidden matrices, the head, or vectors and embeddings."""
    if parameter.ndim < 2 or "embedding" in name:
        return "other"
    return "head" if name.startswith(("lm_head", "value_head")) else "hidden"
