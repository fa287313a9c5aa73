"""What is minimised."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


def cross_entropy(
    logits: Float[Tensor, "*batch vocab"], targets: Int[Tensor, "*batch"], reduction: str = "mean"
) -> Float[Tensor, ""]:
    """Return `log sum exp(logits) - logits[target]` in nats: the mean or the sum over all tokens.

    Float32 inside; `logsumexp` subtracts the maximum, so large logits do not overflow.
    """
    logits = logits.float()
    target_logits = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    losses = torch.logsumexp(logits, dim=-1) - target_logits
    return losses.sum() if reduction == "sum" else losses.mean()


def z_loss(logits: Float[Tensor, "*batch vocab"]) -> Float[Tensor, ""]:
    """Return the mean of `log^2 Z`, `Z = sum exp(logits)` (Chowdhery et al. 2022, section 5)."""
    return torch.logsumexp(logits.float(), dim=-1).square().mean()


@dataclass(frozen=True)
class Penalties:
    """What is minimised beside the objective: a weighted z-loss, and what the model adds."""

    z_loss: float
    model: Callable[[], dict[str, Tensor]]

    def __call__(self, logits: Float[Tensor, "*batch vocab"]) -> dict[str, Float[Tensor, ""]]:
        """Return them by name, weighted; the model has just computed the logits."""
        penalties = self.model()
        if self.z_loss > 0:
            penalties["z_loss"] = self.z_loss * z_loss(logits)
        return penalties
