"""What a strategy of parallel training does; the base class is the strategy of one process."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim import Optimizer

from lmlab.parallel.division import WHOLE, Division


class Strategy:
    """One process: nothing is divided, nothing is sent.

    The training step calls `accumulating` around all micro-batches but the last of a step, and
    `finish_gradients` after the last: then `grad` of every parameter is the mean over processes.
    """

    sharded: ClassVar[bool] = False
    """Whether parameters are DTensors of which each process holds a part.

    If so, the model is wrapped on the meta device, and saving, loading and every forward pass need
    all processes.
    """

    division: Division = WHOLE
    """Among how many processes the memory is divided."""

    def check(self, model: nn.Module) -> None:
        """Raise ConfigError for a model that the processes cannot share; it may be on meta."""

    def wrap(self, objective: nn.Module, model: nn.Module) -> nn.Module:
        """Return the objective to train with; called once, before the optimizer is built.

        `model` is the part of the objective that has `blocks`.
        """
        return objective

    def optimizer(self, cls: type[Optimizer], params: Iterable[Any], **kwargs: Any) -> Optimizer:
        """Return an optimizer of a class over parameters or groups of them."""
        return cls(params, **kwargs)

    def accumulating(self) -> AbstractContextManager[object]:
        """Return the context of a micro-batch whose gradients are not sent yet."""
        return nullcontext()

    def finish_gradients(self) -> None:
        """Wait until the gradients of the step are complete."""

    def full_weights(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """Return the whole weights by name on rank 0, on the CPU where they had to be gathered.

        On other ranks the result may be empty. All processes must call it.
        """
        return model.state_dict()


UNDIVIDED = Strategy()
"""The strategy of one process; it has no state."""
