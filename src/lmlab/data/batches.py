"""From token shards to batches: windows that depend on (seed, step) alone."""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, Integer
from torch import Tensor

from lmlab.errors import DataError

Tokens = Integer[np.ndarray, " length"]


class Windows(NamedTuple):
    """A batch of next-token prediction."""

    inputs: Int64[Tensor, "batch context"]
    targets: Int64[Tensor, "batch context"]
    """The inputs shifted by one."""


class Batches:
    """The batches of a run, `batches(step)`: windows at random places, drawn anew at each step.

    The windows of a step are a function of (seed, step), by a counter-based generator (Philox;
    Salmon et al., 2011): resuming needs no loader state, and the batch is the same for any number
    of processes, each of which gets its part of it.
    """

    def __init__(
        self,
        tokens: Tokens,
        batch_size: int,
        context_length: int,
        seed: int,
        *,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        if batch_size % processes:
            raise ValueError(f"batch_size={batch_size} is not divisible by {processes} processes")
        self._places = count_starts(tokens, context_length)
        self.tokens = tokens
        self.batch_size = batch_size
        self.context_length = context_length
        self.seed = seed
        self._first = rank * (batch_size // processes)
        self._count = batch_size // processes

    def starts(self, step: int) -> Int64[np.ndarray, " batch"]:
        """Return where the windows of `step` begin: uniform over [0, length - context - 1]."""
        # The step fills the counter's high half: the steps' streams never meet.
        raw = np.random.Philox(key=self.seed, counter=step << 128).random_raw(self.batch_size)
        # Scaled by exact integers; NumPy's own distributions may change between its versions.
        return np.array([int(bits) * self._places >> 64 for bits in raw], np.int64)

    def __call__(self, step: int) -> Windows:
        """Return this process's windows of `step`, on the CPU."""
        starts = self.starts(step)[self._first : self._first + self._count]
        return windows(self.tokens, starts, self.context_length)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: a batch depends on (seed, step) alone."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing back."""


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


def windows(tokens: Tokens, starts: Int64[np.ndarray, " batch"], context_length: int) -> Windows:
    """Return the inputs that begin at `starts`, and their targets, the same shifted by one."""
    block = np.empty((len(starts), context_length + 1), np.int64)
    for row, start in zip(block, starts, strict=True):
        row[:] = tokens[start : start + context_length + 1]
    both: Any = torch.from_numpy(block)
    return Windows(both[:, :-1].contiguous(), both[:, 1:].contiguous())


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
