"""torch's DistributedDataParallel."""

import warnings
from contextlib import AbstractContextManager

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lmlab.parallel.strategy import Strategy


class DDP(Strategy):
    """Whole model in every process; gradients are averaged in buckets (Li et al. 2020)."""

    module: DistributedDataParallel

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wrap(self, objective: nn.Module, model: nn.Module) -> nn.Module:
        """Return the objective under DDP, which sends the weights of rank 0 to all."""
        with warnings.catch_warnings():  # what replaces the argument is not in every version
            warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
            self.module = DistributedDataParallel(
                objective,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                broadcast_buffers=False,  # they are tables, the same in every process
                gradient_as_bucket_view=True,
            )
        return self.module

    def accumulating(self) -> AbstractContextManager[object]:
        """Return DDP's `no_sync`."""
        return self.module.no_sync()
