"""Advantages: how much better a response or a token was than expected."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def group_normalized(
    rewards: Float[Tensor, "responses"],
    group_size: int,
    *,
    divide_by_std: bool = True,
    eps: float = 1e-6,
) -> Float[Tensor, "responses"]:
    """Return `(r - mean) / (std + eps)` within groups of consecutive responses to one prompt.

    The standard deviation is the unbiased one (Shao et al. 2024); without it: `r - mean` (Dr. GRPO,
    Liu et al. 2025). Raises ValueError when the groups do not divide the responses, and for groups
    of one, which have no standard deviation and no advantage. Equal rewards give exactly 0.
    """
    if group_size < 2:
        raise ValueError(f"group_size must be at least 2, got {group_size}")
    if len(rewards) % group_size:
        raise ValueError(f"{len(rewards)} responses are not divisible by group_size={group_size}")
    # In float64 the mean of equal rewards is exact; a rounded one would differ from them by about
    # their standard deviation, and so make advantages of about 1.
    groups = rearrange(rewards.double(), "(groups size) -> groups size", size=group_size)
    centred = groups - groups.mean(dim=-1, keepdim=True)
    if divide_by_std:
        centred = centred / (groups.std(dim=-1, keepdim=True) + eps)
    return rearrange(centred, "groups size -> (groups size)").to(rewards)


def identical_groups(rewards: Float[Tensor, "responses"], group_size: int) -> int:
    """Return how many groups have one reward for all responses, and so no gradient."""
    groups = rearrange(rewards, "(groups size) -> groups size", size=group_size)
    return int((groups == groups[:, :1]).all(dim=-1).sum().item())


def generalized_advantages(
    rewards: Float[Tensor, "batch time"],
    values: Float[Tensor, "batch time"],
    mask: Float[Tensor, "batch time"],
    *,
    discount: float = 1.0,
    trace: float = 1.0,
) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time"]]:
    """Return advantages and returns of the tokens of responses, 0 elsewhere.

    `A_t = sum_k (discount trace)^k delta_{t+k}` with `delta_t = r_t + discount V_{t+1} - V_t`, and
    V = 0 after the last token; returns are `A + V` (Schulman et al. 2016). `mask` is 1 on the
    response, which is consecutive.
    """
    mask = mask.to(values)
    rewards, values = rewards * mask, values * mask
    advantages = torch.zeros_like(values)
    carried, next_value = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + discount * next_value - values[:, t]
        carried = (delta + discount * trace * carried) * mask[:, t]
        advantages[:, t] = carried
        next_value = values[:, t]
    return advantages, (advantages + values) * mask


def whiten(
    values: Float[Tensor, "batch time"], mask: Float[Tensor, "batch time"], eps: float = 1e-8
) -> Float[Tensor, "batch time"]:
    """Return the values with mean 0 and unbiased standard deviation 1 on the mask, 0 elsewhere.

    Equal values, and a single one, which has no standard deviation, become 0.
    """
    inside = mask.bool()
    chosen = values[inside].double()  # as in `group_normalized`
    centred = chosen - chosen.mean()
    if len(chosen) > 1:
        centred = centred / (chosen.std() + eps)
    return torch.zeros_like(values).masked_scatter(inside, centred.to(values))
