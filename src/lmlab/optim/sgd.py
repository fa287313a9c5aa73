"""Stochastic gradient descent."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class SGD(Optimizer):
    """`theta -= lr * g`, with optional (Nesterov) momentum and decoupled weight decay.

    With momentum `u`, `b = u b + g` replaces `g`; with Nesterov momentum `g + u b` does
    (Sutskever et al. 2013).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0 or not 0 <= momentum < 1 or weight_decay < 0:
            raise ValueError(f"SGD: {lr=}, {momentum=}, {weight_decay=} out of range")
        if nesterov and momentum == 0:
            raise ValueError("SGD: nesterov needs momentum")
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov}
        super().__init__(params, defaults | {"weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Update all parameters once; return the closure's loss, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                update = p.grad
                if momentum:
                    velocity = self.state[p].setdefault("velocity", torch.zeros_like(p))
                    velocity.mul_(momentum).add_(p.grad)
                    update = p.grad.add(velocity, alpha=momentum) if group["nesterov"] else velocity
                p.mul_(1 - lr * group["weight_decay"])
                p.add_(update, alpha=-lr)
        return loss
