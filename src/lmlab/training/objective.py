"""What is minimised."""

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
