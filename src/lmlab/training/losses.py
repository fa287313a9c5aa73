"""Losses of tokens, given logits: the definition, and the same in fewer passes."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

Terms = dict[str, Float[Tensor, ""]]
"""Losses by name; `loss` is the cross-entropy, the others are added to it."""


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


def token_losses(
    logits: Float[Tensor, "*batch vocab"],
    targets: Int[Tensor, "*batch"],
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> Terms:
    """Return the cross-entropy and what is added to it, each summed over all tokens.

    The z-loss is `log^2 Z` with `Z = sum exp(logits)` (Chowdhery et al. 2022, section 5). Label
    smoothing by e moves a share e of the target evenly to all tokens (Szegedy et al. 2016): it adds
    `e (logits[target] - mean(logits))`, and the cross-entropy stays comparable.
    """
    logits = logits.float()
    target_logits = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    normaliser = torch.logsumexp(logits, dim=-1)
    terms = {"loss": (normaliser - target_logits).sum()}
    if z_loss > 0:
        terms["z_loss"] = z_loss * normaliser.square().sum()
    if label_smoothing > 0:
        terms["label_smoothing"] = label_smoothing * (target_logits - logits.mean(dim=-1)).sum()
    return terms


class _TokenLosses(torch.autograd.Function):
    """`token_losses` with its gradient written out: softmax - one-hot, in place."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, z_loss: float, label_smoothing: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        places = targets.unsqueeze(-1)
        log_p = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
        target_log_p = log_p.gather(-1, places)
        target_logits = logits.gather(-1, places).float()
        normaliser = target_logits - target_log_p
        smoothing = normaliser.new_zeros(())
        if label_smoothing > 0:
            means = logits.mean(dim=-1, keepdim=True, dtype=torch.float32)
            smoothing = label_smoothing * (target_logits - means).sum()
        ctx.save_for_backward(places, normaliser)
        ctx.log_p, ctx.settings, ctx.dtype = log_p, (z_loss, label_smoothing), logits.dtype
        return -target_log_p.sum(), z_loss * normaliser.square().sum(), smoothing

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        places, normaliser = ctx.saved_tensors
        z_loss, label_smoothing = ctx.settings
        loss_grad, z_grad, smoothing_grad = grads
        p, ctx.log_p = ctx.log_p.exp_(), None  # which was kept for this alone
        p.mul_(loss_grad + 2 * z_loss * z_grad * normaliser)
        evenly = label_smoothing * smoothing_grad
        if label_smoothing > 0:
            p.sub_(evenly / p.shape[-1])
        p.scatter_add_(-1, places, (evenly - loss_grad).expand(places.shape))
        return p.to(ctx.dtype), None, None, None


def fused_token_losses(
    logits: Float[Tensor, "*batch vocab"],
    targets: Int[Tensor, "*batch"],
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> Terms:
    """Return what `token_losses` does, in fewer passes over the logits; it can go backward once."""
    loss, z, smoothing = _TokenLosses.apply(logits, targets, z_loss, label_smoothing)
    terms = {"loss": loss}
    terms |= {"z_loss": z} if z_loss > 0 else {}
    return terms | ({"label_smoothing": smoothing} if label_smoothing > 0 else {})
