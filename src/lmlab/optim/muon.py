"""Muon: orthogonalized momentum for matrices, AdamW for all other parameters."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lmlab.optim.adamw import AdamW
from lmlab.optim.shards import gathered, local, part_of
from lmlab.processor import FAST_BFLOAT16

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, with a large slope at 0 (Jordan et al. 2024)."""
TOGETHER = 2**24
"""Elements of the matrices that are updated in one batch of products; bounds the memory."""


def newton_schulz(
    matrix: Float[Tensor, "*batch rows columns"], steps: int = 5
) -> Float[Tensor, "*batch rows columns"]:
    """Return the matrix with singular values of about 1, between 0.7 and 1.2.

    Five steps of `X <- a X + (b A + c A^2) X`, `A = X X^T`, from `X = M / |M|` (Jordan et al.
    2024). A float32 matrix is computed in bfloat16 where the device multiplies that faster.
    """
    a, b, c = COEFFICIENTS
    x = matrix.bfloat16() if _in_bfloat16(matrix) else matrix
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.mT if tall else x).to(matrix.dtype)


def _in_bfloat16(matrix: Tensor) -> bool:
    fast = matrix.is_cuda or (matrix.device.type == "cpu" and FAST_BFLOAT16)
    return fast and matrix.dtype == torch.float32


class Muon(AdamW):
    """Muon (Jordan et al. 2024) for the groups with `muon=True`, AdamW for the others.

    Updates are scaled by `0.2 sqrt(max(rows, columns))` to the size of AdamW's (Liu et al. 2025),
    so both share one learning rate and weight decay. The update of a matrix needs all of it: of
    DTensors every process gathers the momentum, computes the whole update and keeps its part.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        newton_schulz_steps: int = 5,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"Muon: {momentum=} out of range")
        super().__init__(params, lr, betas, eps, weight_decay)
        own = {"muon": False, "momentum": momentum, "newton_schulz_steps": newton_schulz_steps}
        self.defaults |= own  # of groups that are added later
        for group in self.param_groups:
            for name, value in own.items():
                group.setdefault(name, value)

    def _new_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        if group["muon"]:
            return {"step": 0, "momentum": torch.zeros_like(p)}
        return super()._new_state(p, group)

    def _update(self, params: list[Tensor], t: int, group: dict[str, Any]) -> None:
        if not group["muon"]:
            super()._update(params, t, group)
            return
        lr, momentum = group["lr"], group["momentum"]
        grads = [local(p.grad) for p in params if p.grad is not None]
        buffers = [local(self.state[p]["momentum"]) for p in params]
        torch._foreach_lerp_(buffers, grads, 1 - momentum)
        parts = [local(p) for p in params]
        torch._foreach_mul_(parts, 1 - lr * group["weight_decay"])
        for same in _batches(params):
            nesterov = torch._foreach_lerp(
                [grads[i] for i in same], [buffers[i] for i in same], momentum
            )
            stacked = torch.stack(
                [gathered(part, params[i]) for part, i in zip(nesterov, same, strict=True)]
            )
            updates = newton_schulz(stacked, group["newton_schulz_steps"]).unbind()
            own = [part_of(u, params[i]) for u, i in zip(updates, same, strict=True)]
            scale = 0.2 * max(stacked.shape[-2:]) ** 0.5
            torch._foreach_add_([parts[i] for i in same], own, alpha=-lr * scale)


def _batches(params: list[Tensor]) -> Iterator[list[int]]:
    """Yield the numbers of matrices of one shape: their products are few large kernels."""
    for shape in dict.fromkeys(p.shape for p in params):
        same = [i for i, p in enumerate(params) if p.shape == shape]
        size = max(1, TOGETHER // shape.numel())
        for start in range(0, len(same), size):
            yield same[start : start + size]
