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


@dataclass(frozen=True)
class StepStats:
    """What a step measured, still on the device."""

    loss: Float[Tensor, ""]
    grad_norm: Float[Tensor, ""]


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
) -> StepStats:
    """Accumulate the gradient of the mean loss over micro-batches, clip it, update the parameters.

    The result does not depend on `micro_batch_size`, up to rounding.
    """
    inputs, targets = (part.to(device, non_blocking=True) for part in batch)
    size = micro_batch_size or len(inputs)
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=device)
    for x, y in zip(inputs.split(size), targets.split(size), strict=True):
        with autocast():
            loss = objective(model(x), y) * (len(x) / len(inputs))
        loss.backward()
        total += loss.detach()
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    norm = clip_gradients(parameters, max_grad_norm)
    optimizer.step()
    return StepStats(total, norm)
