"""Losses of pairs of a chosen and a rejected response."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Pairs = Float[Tensor, "pairs"]


class PreferenceLoss(NamedTuple):
    """The loss and the implicit rewards of each pair."""

    losses: Float[Tensor, "pairs"]
    chosen_rewards: Float[Tensor, "pairs"]
    """`beta (log p - log p_ref)` of the chosen response, without gradient."""
    rejected_rewards: Float[Tensor, "pairs"]


def dpo_loss(
    policy_chosen: Pairs,
    policy_rejected: Pairs,
    reference_chosen: Pairs,
    reference_rejected: Pairs,
    *,
    beta: float,
) -> PreferenceLoss:
    """Return `-log sigmoid(beta ((pi_w - ref_w) - (pi_l - ref_l)))` (Rafailov et al. 2023).

    The arguments are log-probabilities of responses: sums over their tokens.
    """
    chosen, rejected = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    losses = -F.logsigmoid(beta * (chosen - rejected))
    return PreferenceLoss(losses, (beta * chosen).detach(), (beta * rejected).detach())


def ipo_loss(
    policy_chosen: Pairs,
    policy_rejected: Pairs,
    reference_chosen: Pairs,
    reference_rejected: Pairs,
    *,
    beta: float,
) -> PreferenceLoss:
    """Return `(h - 1 / (2 beta))^2`, h as in `dpo_loss` without beta (Azar et al. 2023).

    The arguments are means over the tokens of responses, as TRL has it.
    """
    chosen, rejected = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    losses = torch.square(chosen - rejected - 1 / (2 * beta))
    return PreferenceLoss(losses, (beta * chosen).detach(), (beta * rejected).detach())
