"""Losses of tokens, given logits: the definition, and the same in fewer passes."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmlab.kernels import native
from lmlab.processor import computed_here

Terms = dict[str, Float[Tensor, ""]]
"""Losses by name; `loss` is the cross-entropy, the others are added to it."""
CACHED_LOGITS = 2**18
"""Logits of a thread at a time: a megabyte of float32, which the level 2 cache holds."""


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


def refuse_second_derivative() -> None:
    """Raise RuntimeError in a backward pass with `create_graph`: its gradients are constants.

    torch's `once_differentiable` returns constants, too, where the incoming gradient is one.
    """
    if torch.is_grad_enabled():
        raise RuntimeError("a fused loss has no second derivative; use token_losses of all logits")


class _TokenLosses(torch.autograd.Function):
    """`token_losses` and, while the probabilities are there, the gradient of the sum of all terms.

    On the CPU the native core computes them, where it is missing torch, as many rows at a time as
    the caches hold.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, z_loss: float, label_smoothing: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows, places = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1, 1)
        needed = ctx.needs_input_grad[0]
        if native.computes(logits, targets) and logits.dtype in native.DTYPES:
            terms, grads = native.token_losses(
                rows, places.view(-1), z_loss, label_smoothing, gradient=needed
            )
            return _TokenLosses._keep(ctx, logits, grads, terms.sum(dim=0))
        size, dtype = max(1, len(rows)), torch.float32
        if computed_here(logits):
            size = max(1, torch.get_num_threads() * CACHED_LOGITS // rows.shape[-1])
            # Float16 holds small gradients only after the loss is scaled, in the backward pass.
            dtype = torch.float32 if logits.dtype == torch.float16 else logits.dtype
        grads = torch.empty(rows.shape, dtype=dtype, device=logits.device) if needed else None
        sums = torch.zeros(3, device=logits.device)
        for start in range(0, len(rows), size):
            x, place = rows[start : start + size].float(), places[start : start + size]
            target_logits = x.gather(-1, place)
            p = torch.log_softmax(x, dim=-1)
            losses = -p.gather(-1, place)
            normaliser = target_logits + losses
            smoothing = normaliser.new_zeros(())
            if label_smoothing > 0:
                smoothing = label_smoothing * (target_logits - x.mean(dim=-1, keepdim=True)).sum()
            z = z_loss * normaliser.square().sum()
            sums += torch.stack((losses.sum(), z, smoothing))
            if grads is None:
                continue
            p.exp_()
            if z_loss > 0:
                p.mul_(1 + 2 * z_loss * normaliser)
            if label_smoothing > 0:
                p.sub_(label_smoothing / p.shape[-1])
            p.scatter_add_(-1, place, p.new_full((), label_smoothing - 1).expand(place.shape))
            grads[start : start + size] = p
        return _TokenLosses._keep(ctx, logits, grads, sums)

    @staticmethod
    def _keep(
        ctx: Any, logits: Tensor, grads: Tensor | None, sums: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.grads, ctx.dtype = None if grads is None else grads.view(logits.shape), logits.dtype
        loss, z, smoothing = sums.unbind()
        ctx.mark_non_differentiable(z, smoothing)
        return loss, z, smoothing

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        refuse_second_derivative()
        saved, ctx.grads = ctx.grads, None  # which was kept for this alone
        if saved is None:
            raise RuntimeError("a fused loss can go backward once")
        if not (computed_here(grads[0]) and grads[0] == 1):
            saved.mul_(grads[0])
        return saved.to(ctx.dtype), None, None, None


def fused_token_losses(
    logits: Float[Tensor, "*batch vocab"],
    targets: Int[Tensor, "*batch"],
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> Terms:
    """Return what `token_losses` does, in fewer passes over the logits; it can go backward once.

    Only the sum of all terms has a gradient: `loss` carries it, the others are detached.
    """
    loss, z, smoothing = _TokenLosses.apply(logits, targets, z_loss, label_smoothing)
    terms = {"loss": loss}
    terms |= {"z_loss": z} if z_loss > 0 else {}
    return terms | ({"label_smoothing": smoothing} if label_smoothing > 0 else {})
