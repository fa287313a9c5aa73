"""One optimizer step."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.optim import Optimizer

from lmlab.optim.clip import clip_gradients
from lmlab.training.losses import Terms
from lmlab.training.objective import Losses

Batch = tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]
Objective = Callable[[Int[Tensor, "batch time"], Int[Tensor, "batch time"]], Losses]


@dataclass(frozen=True)
class StepStats:
    """What a step measured, still on the device: means over the batch, before the update."""

    terms: Terms
    """What was minimised: `loss`, and what is added to it."""
    grad_norm: Float[Tensor, ""]


@dataclass
class LossScaler:
    """Keeps float16 gradients in range (Micikevicius et al. 2018): minimises `scale * loss`.

    A step whose gradients overflow is left out and halves the scale; many good steps double it.
    """

    scale: float = 2.0**16
    good_steps: int = 0
    GROW_AFTER = 2000
    SMALLEST = 2.0**-10

    def update(self, grad_norm: Float[Tensor, ""]) -> bool:
        """Adapt the scale, and return whether the gradients are good."""
        good = math.isfinite(grad_norm.item())
        self.good_steps = self.good_steps + 1 if good else 0
        if not good:
            self.scale /= 2
        elif self.good_steps == self.GROW_AFTER:
            self.scale, self.good_steps = self.scale * 2, 0
        return good


def optimize_step(
    objective: Objective,
    optimizer: Optimizer,
    batch: Batch,
    *,
    micro_batch_size: int | None,
    max_grad_norm: float | None,
    autocast: Callable[[], AbstractContextManager[object]],
    device: torch.device,
    scaler: LossScaler | None = None,
) -> StepStats:
    """Accumulate the gradient of the mean loss over micro-batches, clip it, update the parameters.

    Up to rounding the result does not depend on `micro_batch_size`, but for what the model draws or
    measures within a micro-batch: dropout, and the balance of experts.
    """
    inputs, targets = (part.to(device, non_blocking=True) for part in batch)
    size = micro_batch_size or len(inputs)
    optimizer.zero_grad(set_to_none=True)
    sums = dict[str, Tensor]()
    unsynced = getattr(objective, "no_sync", nullcontext)  # several processes: average at the end
    for start in range(0, len(inputs), size):
        x, y = inputs[start : start + size], targets[start : start + size]
        share = len(x) / len(inputs)
        with nullcontext() if start + size >= len(inputs) else unsynced():
            with autocast():
                total, terms = objective(x, y)
            (total * (share * scaler.scale if scaler else share)).backward()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value * share
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if scaler is not None:
        grads = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_mul_(grads, 1 / scaler.scale)
    norm = clip_gradients(parameters, max_grad_norm)
    if scaler is None or scaler.update(norm):
        optimizer.step()
    return StepStats(sums, norm)
