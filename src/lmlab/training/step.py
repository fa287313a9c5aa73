"""One optimizer step."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer
from torch.profiler import record_function

from lmlab.optim.clip import clip_gradients
from lmlab.optim.shards import local
from lmlab.training.batch import Batch, micro_batches, to_device
from lmlab.training.losses import Terms
from lmlab.training.objective import Losses
from lmlab.training.runtime import Runtime

LossFunction = Callable[..., Losses]
"""An objective, wrapped and compiled: takes the parts of a batch, returns sums over its rows."""


@dataclass(frozen=True)
class StepStats:
    """Measurements of a step, still on the device, before the update."""

    terms: Terms
    """Sums over this process's sequences divided by the weight of all processes: `loss`, and what
    the objective logs beside it. Their sums over the processes are means."""
    grad_norm: Float[Tensor, ""]


@dataclass
class LossScaler:
    """Keeps float16 gradients in range (Micikevicius et al. 2018): minimises `scale * loss`.

    A step whose gradients overflow is skipped and halves the scale; many finite steps double it.
    """

    scale: float = 2.0**16
    good_steps: int = 0
    GROW_AFTER = 2000
    SMALLEST = 2.0**-10

    def update(self, grad_norm: Float[Tensor, ""]) -> bool:
        """Adapt the scale, and return whether the gradients are finite."""
        good = math.isfinite(grad_norm.item())
        self.good_steps = self.good_steps + 1 if good else 0
        if not good:
            self.scale /= 2
        elif self.good_steps == self.GROW_AFTER:
            self.scale, self.good_steps = self.scale * 2, 0
        return good


def optimize_step(
    objective: LossFunction,
    optimizer: Optimizer,
    batch: Batch,
    weight: float,
    runtime: Runtime,
    *,
    micro_batch_size: int | None = None,
    max_grad_norm: float | None = None,
    scaler: LossScaler | None = None,
) -> StepStats:
    """Accumulate gradients over micro-batches, clip them, update the parameters.

    What is minimised is the sum over the sequences of all processes divided by `weight`, the weight
    of all of them, so that masked and packed sequences count exactly. Up to rounding the result
    does not depend on `micro_batch_size`, except for what the model draws or measures within a
    micro-batch: dropout, and the balance of experts.
    """
    optimizer.zero_grad(set_to_none=True)
    sums = dict[str, Tensor]()
    scale = runtime.distributed.data_size / weight  # gradients are averaged over the processes
    scale *= scaler.scale if scaler else 1.0
    pieces = list(micro_batches(to_device(batch, runtime.device), micro_batch_size))
    for number, piece in enumerate(pieces, start=1):
        with nullcontext() if number == len(pieces) else runtime.strategy.accumulating():
            with record_function("forward"), runtime.autocast():
                total, terms = objective(*piece)
            with record_function("backward"):
                (total * scale).backward()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value / weight
    runtime.strategy.finish_gradients()
    with record_function("optimizer"):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if scaler is not None:
            grads = [local(p.grad) for p in parameters if p.grad is not None]
            torch._foreach_mul_(grads, 1 / scaler.scale)
        norm = clip_gradients(parameters, max_grad_norm)
        if scaler is None or scaler.update(norm):
            optimizer.step()
    return StepStats(sums, norm)
