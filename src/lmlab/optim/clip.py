"""Gradient clipping."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from lmlab.optim.shards import global_norm, local

EPS = 1e-6


def clip_gradients(parameters: Iterable[Tensor], max_norm: float | None) -> Float[Tensor, ""]:
    """Scale all gradients by `max_norm / (norm + 1e-6)` if their global L2 norm exceeds `max_norm`.

    Returns the norm before clipping. With None no gradient is changed (Pascanu et al. 2013).
    Gradients may be DTensors and tensors mixed; all processes must call it then.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return torch.zeros(())
    norm = global_norm(grads)
    if max_norm is not None and not (norm.is_cpu and norm <= max_norm):
        # The factor is exactly 1 below the limit; reading the norm would wait for the device.
        factor = torch.where(norm > max_norm, max_norm / (norm + EPS), 1.0)
        torch._foreach_mul_([local(grad) for grad in grads], factor)
    return norm
