"""One optimizer step."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.optim import Optimizer

from lmlab.optim.clip import clip_gradients

Objective = Callable[[Float[Tensor, "batch time vocab"], Int[Tensor, "batch time"]], Tensor]
PenaltyTerms = Callable[[Float[Tensor, "batch time vocab"]], dict[str, Tensor]]


@dataclass(frozen=True)
class StepStats:
    """What a step measured, still on the device."""

    loss: Float[Tensor, ""]
    grad_norm: Float[Tensor, ""]
    penalties: dict[str, Float[Tensor, ""]]


def optimize_step(
    model: Callable[[Int[Tensor, "batch time"]], Tensor],
    optimizer: Optimizer,
    objective: Objective,
    batch: tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]],
    *,
    micro_batch_size: int | None,
    max_grad_norm: float | None,
    autocast: Callable[[], AbstractContextManager[object]],
    device: torch.device,
    penalties: PenaltyTerms | None = None,
) -> StepStats:
    """Accumulate the gradient of the mean loss over micro-batches, clip it, update the parameters.

    The penalties are minimised with the loss, but are no part of the one that is returned.

    The result does not depend on `micro_batch_size`, up to rounding.
    """
    inputs, targets = (part.to(device, non_blocking=True) for part in batch)
    size = micro_batch_size or len(inputs)
    optimizer.zero_grad(set_to_none=True)
    total, terms = torch.zeros((), device=device), dict[str, Tensor]()
    for x, y in zip(inputs.split(size), targets.split(size), strict=True):
        share = len(x) / len(inputs)
        with autocast():
            logits = model(x)
            loss = objective(logits, y) * share
            added = penalties(logits) if penalties is not None else {}
            added = {name: penalty * share for name, penalty in added.items()}
        sum(added.values(), loss).backward()
        total += loss.detach()
        for name, penalty in added.items():
            terms[name] = terms.get(name, 0.0) + penalty.detach()
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    norm = clip_gradients(parameters, max_grad_norm)
    optimizer.step()
    return StepStats(total, norm, terms)
