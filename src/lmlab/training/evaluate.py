"""Validation loss, and bits per byte, which compares runs with different tokenizers."""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import nn

from lmlab.training.runtime import Runtime


class Evaluator:
    """Measures a model on fixed windows of the validation tokens, the same in every run."""

    def __init__(
        self,
        tokens: NDArray[np.unsignedinteger],
        starts: Int[np.ndarray, "windows"],
        context_length: int,
        byte_lengths: Int[np.ndarray, "vocab"],
        batch_size: int,
        runtime: Runtime,
    ) -> None:
        windows = starts[:, None] + np.arange(context_length + 1)
        self.windows = torch.from_numpy(tokens[windows].astype(np.int64))
        self.batch_size = batch_size
        self.runtime = runtime
        self.bytes = int(byte_lengths[self.windows[:, 1:].numpy()].sum())

    @torch.no_grad()
    def __call__(
        self, objective: nn.Module, stop: Callable[[], object] = lambda: False
    ) -> dict[str, float] | None:
        """Return the mean loss in nats per token, and the bits per byte of the predicted text.

        None, in all processes, when `stop` is true in one of them.
        """
        distributed, device = self.runtime.distributed, self.runtime.device
        objective.eval()
        nats, count = 0.0, 0
        mine = self.windows[distributed.rank :: distributed.size]
        for batch in mine.split(self.batch_size) if len(mine) else ():
            if stop():
                break
            inputs, targets = batch[:, :-1].to(device), batch[:, 1:].to(device)
            with self.runtime.autocast():
                _, terms = objective(inputs, targets)
            nats += terms["loss"].item()
            count += targets.numel()
        objective.train()
        if distributed.maximum(bool(stop())):
            return None
        nats, total = distributed.sum(nats, count)
        bits_per_byte = nats / math.log(2) / self.bytes
        return {"val/loss": nats / total, "val/bits_per_byte": bits_per_byte}
