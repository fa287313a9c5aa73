"""AdamW on torch's list operations, with torch's fused kernel as a backend."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from lmlab.optim.shards import local

Backend = Literal["auto", "foreach", "fused"]


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    With `t` from 1: `m = b1 m + (1-b1) g`, `v = b2 v + (1-b2) g^2`, `theta -= lr * wd * theta`,
    `theta -= lr sqrt(1-b2^t) / (1-b1^t) * m / (sqrt(v) + eps sqrt(1-b2^t))`.
    Parameters without a gradient are not changed. Backends: `foreach` is the definition, `fused`
    torch's kernel with one pass over memory instead of seven; `auto` is fused on CPU and CUDA.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        backend: Backend = "auto",
    ) -> None:
        if lr < 0 or eps < 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"AdamW: {lr=}, {betas=}, {eps=}, {weight_decay=} out of range")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        self.backend = backend
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Update all parameters once; return the closure's loss, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                if not self.state[p]:
                    self.state[p] = self._new_state(p, group)
                self.state[p]["step"] += 1
            # The bias correction depends on the number of steps: one call for each number.
            for t in {self.state[p]["step"] for p in params}:
                same = [p for p in params if self.state[p]["step"] == t]
                self._update(same, t, group)
        return loss

    def _new_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": 0, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}

    def _update(self, params: list[Tensor], t: int, group: dict[str, Any]) -> None:
        (beta1, beta2), lr = group["betas"], group["lr"]
        grads = [local(p.grad) for p in params if p.grad is not None]
        m = [local(self.state[p]["exp_avg"]) for p in params]
        v = [local(self.state[p]["exp_avg_sq"]) for p in params]
        params = [local(p) for p in params]
        if self.backend == "fused" or (self.backend == "auto" and _all_on_fused_devices(params)):
            _fused(params, grads, m, v, t, group)
            return
        torch._foreach_lerp_(m, grads, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, grads, grads, 1 - beta2)
        if group["weight_decay"] != 0:
            torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        root = (1 - beta2**t) ** 0.5
        denominator = torch._foreach_sqrt(v)
        torch._foreach_add_(denominator, group["eps"] * root)
        torch._foreach_addcdiv_(params, m, denominator, -lr * root / (1 - beta1**t))


def _all_on_fused_devices(params: list[Tensor]) -> bool:
    return all(p.device.type in ("cpu", "cuda") for p in params)


def _fused(
    params: list[Tensor],
    grads: list[Tensor],
    m: list[Tensor],
    v: list[Tensor],
    t: int,
    group: dict[str, Any],
) -> None:
    step = torch.full((), float(t), device=params[0].device)
    torch._fused_adamw_(
        params,
        grads,
        m,
        v,
        [],
        [step] * len(params),
        lr=group["lr"],
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
    )
