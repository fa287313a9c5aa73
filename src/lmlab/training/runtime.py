"""Where a run is computed."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from lmlab.parallel.strategy import UNDIVIDED, Strategy
from lmlab.training.device import autocast_for
from lmlab.training.distributed import SINGLE_PROCESS, DistributedContext


@dataclass(frozen=True)
class Runtime:
    """Device, precision, seed and processes of a run: what every part of it needs to know."""

    device: torch.device
    precision: str = "fp32"
    """fp32, bf16, fp16, fp8 or mxfp8."""
    seed: int = 0
    distributed: DistributedContext = SINGLE_PROCESS
    strategy: Strategy = UNDIVIDED
    """How the processes share the model and its gradients."""

    @property
    def autocast(self) -> Callable[[], AbstractContextManager[object]]:
        """The context in which the model and its loss are computed."""
        return autocast_for(self.precision, self.device)
