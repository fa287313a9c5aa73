"""Validation loss, and bits per byte, which compares runs with different tokenizers."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor, nn

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
        stopped = False
        for batch, counts in self._batches():
            # Together, because a pass through a sharded model needs all processes.
            if stopped := distributed.maximum(bool(stop())) > 0:
                break
            inputs, targets = batch[:, :-1].to(device), batch[:, 1:].to(device)
            with self.runtime.autocast():
                _, terms = objective(inputs, targets)
            if counts:
                nats += terms["loss"].item()
                count += targets.numel()
        objective.train()
        if stopped or distributed.maximum(bool(stop())):
            return None
        nats, total = distributed.sum(nats, count)
        bits_per_byte = nats / math.log(2) / self.bytes
        return {"val/loss": nats / total, "val/bits_per_byte": bits_per_byte}

    def _batches(self) -> Iterator[tuple[Tensor, bool]]:
        """Yield this process's windows in batches, and whether they count.

        All processes get equally many; those without windows of their own get one that does not
        count.
        """
        distributed = self.runtime.distributed
        parts = self.windows[distributed.data_rank :: distributed.data_size].split(self.batch_size)
        largest = -(-len(self.windows) // distributed.data_size)
        for number in range(-(-largest // self.batch_size)):
            counts = number < len(parts) and len(parts[number]) > 0
            yield (parts[number] if counts else self.windows[:1]), counts
