"""Validation loss, and bits per byte, which compares runs with different tokenizers."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import nn

from lmlab.training.objective import cross_entropy


class Evaluator:
    """Measures a model on fixed windows of the validation tokens, the same in every run."""

    def __init__(
        self,
        tokens: NDArray[np.unsignedinteger],
        starts: Int[np.ndarray, "windows"],
        context_length: int,
        byte_lengths: Int[np.ndarray, "vocab"],
        batch_size: int,
    ) -> None:
        windows = starts[:, None] + np.arange(context_length + 1)
        self.windows = torch.from_numpy(tokens[windows].astype(np.int64))
        self.batch_size = batch_size
        self.bytes = int(byte_lengths[self.windows[:, 1:].numpy()].sum())

    @torch.no_grad()
    def __call__(
        self,
        model: nn.Module,
        autocast: Callable[[], AbstractContextManager[object]],
        device: torch.device,
    ) -> dict[str, float]:
        """Return the mean loss in nats per token, and the bits per byte of the predicted text."""
        model.eval()
        nats, count = 0.0, 0
        for batch in self.windows.split(self.batch_size):
            batch = batch.to(device)
            with autocast():
                nats += cross_entropy(model(batch[:, :-1]), batch[:, 1:], reduction="sum").item()
            count += batch[:, 1:].numel()
        model.train()
        bits_per_byte = nats / math.log(2) / self.bytes
        return {"val/loss": nats / count, "val/bits_per_byte": bits_per_byte}
