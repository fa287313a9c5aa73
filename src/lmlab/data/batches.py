"""Token shards to batches; which ones depends on (seed, step) alone."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Integer
from torch import Tensor

from lmlab.errors import DataError

Tokens = Integer[np.ndarray, " length"]


class Batches:
    """The batches of a run, `batches(step)`: windows at random places, drawn anew at each step.

    The windows of a step are a function of (seed, step), by a counter-based generator (Philox;
    Salmon et al., 2011): resuming needs no loader state, and the batch is the same for any number
    of processes.
    """

    def __init__(self, tokens: Tokens, batch_size: int, context_length: int, seed: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        self._places = count_starts(tokens, context_length)
        self.tokens = tokens
        self.batch_size = batch_size
        self.context_length = context_length
        self.seed = seed

    def starts(self, step: int) -> Int64[np.ndarray, " batch"]:
        """Return where the windows of `step` begin: uniform over [0, length - context - 1]."""
        # The step fills the counter's high half: the steps' streams never meet.
        raw = np.random.Philox(key=self.seed, counter=step << 128).random_raw(self.batch_size)
        # Scaled by exact integers; NumPy's own distributions may change between its versions.
        return np.array([int(bits) * self._places >> 64 for bits in raw], np.int64)

    def __call__(
        self, step: int
    ) -> tuple[Int64[Tensor, "batch context"], Int64[Tensor, "batch context"]]:
        """Return the inputs of `step` and their targets, the same shifted by one; on the CPU."""
        return windows(self.tokens, self.starts(step), self.context_length)


def get_batch(
    tokens: Tokens,
    batch_size: int,
    context_length: int,
    device: str | torch.device = "cpu",
    generator: torch.Generator | None = None,
) -> tuple[Int64[Tensor, "batch context"], Int64[Tensor, "batch context"]]:
    """Return inputs and targets (the same shifted by one) at uniformly random places of `tokens`.

    Raises DataError when `tokens` is shorter than one context and its next token.
    """
    places = count_starts(tokens, context_length)
    starts = torch.randint(places, (batch_size,), generator=generator)
    x, y = windows(tokens, starts.numpy(), context_length)
    return x.to(device), y.to(device)


def validation_starts(
    tokens: Tokens, context_length: int, windows: int | None
) -> Int64[np.ndarray, " windows"]:
    """Return where `windows` evenly spaced windows that do not overlap begin; None: all there are.

    There are floor((length - 1) / context) of them, and never more are returned. The places depend
    on the arguments alone, so every evaluation of every run measures the same text.
    """
    count_starts(tokens, context_length)
    available = (len(tokens) - 1) // context_length
    wanted = available if windows is None else windows
    if wanted < 1:
        raise ValueError(f"windows must be >= 1, got {windows}")
    wanted = min(wanted, available)
    return np.arange(wanted, dtype=np.int64) * available // wanted * context_length


def windows(
    tokens: Tokens, starts: Int64[np.ndarray, " batch"], context_length: int
) -> tuple[Int64[Tensor, "batch context"], Int64[Tensor, "batch context"]]:
    """Return the inputs that begin at `starts`, and their targets, the same shifted by one."""
    block = np.empty((len(starts), context_length + 1), np.int64)
    for row, start in zip(block, starts, strict=True):
        row[:] = tokens[start : start + context_length + 1]
    both: Any = torch.from_numpy(block)
    return both[:, :-1].contiguous(), both[:, 1:].contiguous()


def count_starts(tokens: Tokens, context_length: int) -> int:
    """Return at how many places a window can begin; DataError if there is none."""
    if context_length < 1:
        raise ValueError(f"context_length must be >= 1, got {context_length}")
    if len(tokens) <= context_length:
        raise DataError(
            f"a corpus of {len(tokens):,} tokens is shorter than one context: {context_length:,} "
            "tokens and the next one; use more text, or lower the context length"
        )
    return len(tokens) - context_length
