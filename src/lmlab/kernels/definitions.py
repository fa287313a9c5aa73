"""What the fused kernels compute, with gradients by formula, in plain torch."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

Logits = Float[Tensor, "rows vocab"]
PerRow = Float[Tensor, "rows"]


def cross_entropy(logits: Logits, targets: Int[Tensor, "rows"]) -> tuple[PerRow, PerRow, PerRow]:
    """Return of each row the loss, the log-sum-exp and the mean of its logits, in float32.

    The loss is `logsumexp(logits) - logits[target]`; the other two are what a z-loss and label
    smoothing are made of.
    """
    logits = logits.float()
    lse = torch.logsumexp(logits, dim=-1)
    target = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return lse - target, lse, logits.mean(dim=-1)


def cross_entropy_backward(
    grads: tuple[PerRow, PerRow, PerRow],
    logits: Logits,
    targets: Int[Tensor, "rows"],
    lse: PerRow,
) -> Logits:
    """Return the gradient of the logits: `(g_loss + g_lse) p - g_loss onehot + g_mean / V`."""
    loss_grad, lse_grad, mean_grad = (grad.unsqueeze(-1) for grad in grads)
    p = torch.exp(logits.float() - lse.unsqueeze(-1))
    result = (loss_grad + lse_grad) * p + mean_grad / logits.shape[-1]
    return result.scatter_add(-1, targets.unsqueeze(-1), -loss_grad).to(logits.dtype)


def rms_norm(
    x: Float[Tensor, "rows d"], weight: Float[Tensor, "d"], eps: float
) -> tuple[Float[Tensor, "rows d"], PerRow]:
    """Return `x r weight` and `r = 1 / sqrt(mean(x^2) + eps)` (Zhang and Sennrich 2019)."""
    x32 = x.float()
    r = torch.rsqrt(x32.square().mean(dim=-1) + eps)
    return (x32 * r.unsqueeze(-1) * weight.float()).to(x.dtype), r


def rms_norm_backward(
    grad: Float[Tensor, "rows d"],
    x: Float[Tensor, "rows d"],
    weight: Float[Tensor, "d"],
    r: PerRow,
) -> tuple[Float[Tensor, "rows d"], Float[Tensor, "d"]]:
    """Return the gradients of x, `r (g w - n mean(g w n))` with `n = x r`, and of the weight."""
    normed, grad32 = x.float() * r.unsqueeze(-1), grad.float()
    scaled = grad32 * weight.float()
    mean = (scaled * normed).mean(dim=-1, keepdim=True)
    x_grad = r.unsqueeze(-1) * (scaled - normed * mean)
    return x_grad.to(x.dtype), (grad32 * normed).sum(dim=0).to(weight.dtype)


def weighted_sum(x: Float[Tensor, "rows d"], weight: Float[Tensor, "d"]) -> Float[Tensor, "rows"]:
    """Return the sum of each row's elements times the weight."""
    return (x * weight).sum(dim=-1)


def weighted_sum_backward(
    grad: Float[Tensor, "rows"], x: Float[Tensor, "rows d"], weight: Float[Tensor, "d"]
) -> tuple[Float[Tensor, "rows d"], Float[Tensor, "d"]]:
    """Return the gradients of x, an outer product, and of the weight, a sum over rows."""
    return grad.unsqueeze(-1) * weight, (grad.unsqueeze(-1) * x).sum(dim=0)
