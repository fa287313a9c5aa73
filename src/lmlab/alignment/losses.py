"""Policy-gradient losses of tokens, the penalty against a reference, and the loss of values."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lmlab.alignment.config import PolicyLossKind

PerToken = Float[Tensor, "batch time"]


class PolicyLoss(NamedTuple):
    """A loss of each token, and where clipping changed it."""

    losses: Float[Tensor, "batch time"]
    clipped: Bool[Tensor, "batch time"]
    """Where the clipped term is the smaller one, so that the token has no gradient."""


def policy_loss(
    kind: PolicyLossKind,
    log_probs: Float[Tensor, "batch time"],
    advantages: Float[Tensor, "batch"] | Float[Tensor, "batch time"],
    old_log_probs: Float[Tensor, "batch time"] | None = None,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> PolicyLoss:
    """Return the loss of each token, to be minimised; advantages of sequences count for each token.

    With ratio = exp(log_probs - old_log_probs):
    `no_baseline`: -r log p, where `advantages` are the rewards (Williams 1992);
    `reinforce_with_baseline`: -A log p;
    `grpo_clip`: -min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A) (Schulman et al. 2017);
    `no_clip`: -ratio A.
    Raises ValueError when a loss with a ratio has no `old_log_probs`.
    """
    if advantages.ndim == log_probs.ndim - 1:
        advantages = advantages.unsqueeze(-1)
    if kind in ("no_baseline", "reinforce_with_baseline"):
        losses = -advantages * log_probs
        return PolicyLoss(losses, torch.zeros_like(losses, dtype=torch.bool))
    if old_log_probs is None:
        raise ValueError(f"{kind} needs old_log_probs")
    ratio = (log_probs - old_log_probs).exp()
    gain = ratio * advantages
    if kind == "no_clip":
        return PolicyLoss(-gain, torch.zeros_like(gain, dtype=torch.bool))
    clipped_gain = ratio.clamp(1 - clip_low, 1 + clip_high) * advantages
    return PolicyLoss(-torch.minimum(gain, clipped_gain), clipped_gain < gain)


def kl_penalty(log_probs: PerToken, reference_log_probs: PerToken) -> PerToken:
    """Return `exp(d) - d - 1` with d = log p_ref - log p: an estimate of KL(p, p_ref) per token.

    It is unbiased for tokens drawn from p, and never negative (Schulman 2020; Shao et al. 2024).
    """
    difference = reference_log_probs - log_probs
    return difference.expm1() - difference


def value_loss(
    values: PerToken, old_values: PerToken, returns: PerToken, clip: float | None
) -> PolicyLoss:
    """Return half the squared error of each token's value, the larger one of it and of its clip.

    The clip keeps a value within `clip` of the one at the rollout (Schulman et al. 2017, in the
    form of OpenAI's baselines); None: no clip.
    """
    error = (values - returns).square()
    if clip is None:
        return PolicyLoss(error / 2, torch.zeros_like(error, dtype=torch.bool))
    near = old_values + (values - old_values).clamp(-clip, clip)
    clipped_error = (near - returns).square()
    return PolicyLoss(torch.maximum(error, clipped_error) / 2, clipped_error > error)
