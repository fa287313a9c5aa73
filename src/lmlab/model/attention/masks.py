"""Attention masks: the keys a query attends to, and the keys a cache has to keep."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class Mask(Protocol):
    """A rule over positions of queries and keys, which broadcast."""

    def __hash__(self) -> int: ...

    def allows(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Return whether the query attends to the key."""

    def keeps(self, key: Int[Tensor, "..."], latest: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Return whether any query after position `latest` attends to the key."""

    def kept(self, length: int) -> int:
        """Return the number of keys a cache holds when the next position is `length`."""

    def slot(self, position: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Return where a cache stores a position; a query's keys have different slots."""

    def slots(self, length: int) -> int:
        """Return how many slots the positions below `length` use; they come first."""

    @property
    def attends_to_all_slots(self) -> bool:
        """Whether the latest token attends to all slots in use."""


@dataclass(frozen=True)
class Causal:
    """Each token attends to itself and to all earlier tokens."""

    def allows(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Return whether the key is not later than the query."""
        return key <= query

    def keeps(self, key: Int[Tensor, "..."], latest: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Return True everywhere."""
        return torch.ones_like(key + latest, dtype=torch.bool)

    def kept(self, length: int) -> int:
        """Return `length`."""
        return length

    def slot(self, position: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """One slot for each position."""
        return position

    def slots(self, length: int) -> int:
        """As many as tokens."""
        return length

    @property
    def attends_to_all_slots(self) -> bool:
        """Yes."""
        return True


@dataclass(frozen=True)
class SlidingWindow:
    """Each token attends to the last `window` tokens, itself included."""

    window: int

    def allows(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Return whether the key is in the window that ends at the query."""
        return (key <= query) & (query - key < self.window)

    def keeps(self, key: Int[Tensor, "..."], latest: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Return whether the key is in the next token's window."""
        return latest + 1 - key < self.window

    def kept(self, length: int) -> int:
        """Return the size of the window without the next token."""
        return min(length, self.window - 1)

    def slot(self, position: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """A ring of `window` slots."""
        return position % self.window

    def slots(self, length: int) -> int:
        """At most the window."""
        return min(length, self.window)

    @property
    def attends_to_all_slots(self) -> bool:
        """Yes: the ring holds the window."""
        return True


@dataclass(frozen=True)
class Strided:
    """Each token attends to the last `window` tokens, and to tokens 0, stride, 2 stride, ..."""

    stride: int
    window: int

    def allows(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Return whether the key is in the window or on the stride."""
        return (key <= query) & ((query - key < self.window) | (key % self.stride == 0))

    def keeps(self, key: Int[Tensor, "..."], latest: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Return whether the key is in the next token's window or on the stride."""
        return (latest + 1 - key < self.window) | (key % self.stride == 0)

    def kept(self, length: int) -> int:
        """Return the size of the window plus the multiples of the stride before it."""
        band = min(length, self.window - 1)
        return band + -(-(length - band) // self.stride)

    def slot(self, position: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """A ring for the band, then a slot for each multiple of the stride."""
        fixed = self.window + position // self.stride
        return torch.where(position % self.stride == 0, fixed, position % self.window)

    def slots(self, length: int) -> int:
        """The ring, and the multiples of the stride below `length`."""
        return self.window + -(-length // self.stride)

    @property
    def attends_to_all_slots(self) -> bool:
        """No: the ring's slots of multiples of the stride are empty or out of date."""
        return False


@dataclass(frozen=True)
class AttentionPattern:
    """The keys each query attends to: a mask over the positions of both.

    None for both: positions 0, 1, 2, ... on both sides.
    """

    mask: Mask
    queries: Int[Tensor, "*batch time"] | None = None
    keys: Int[Tensor, "*batch keys"] | None = None
    unrestricted: bool = False
    """Whether every query attends to every key, so that a kernel needs no mask."""
    segments: Int[Tensor, "*batch time"] | None = None
    """Example of each query and key, of which a query attends to its own; None: all are one."""

    @property
    def causal(self) -> bool:
        """Whether this is the causal mask that kernels have built in."""
        return self.queries is None and isinstance(self.mask, Causal)

    def dense(self, time: int, device: torch.device) -> Bool[Tensor, "*batch heads time keys"]:
        """Return where queries attend to keys; never to padding."""
        if self.queries is None or self.keys is None:
            positions = torch.arange(time, device=device)
            return self.mask.allows(positions[:, None], positions)
        return self._dense

    @cached_property
    def _dense(self) -> Bool[Tensor, "*batch heads time keys"]:
        """Computed once for all layers that share the pattern."""
        assert self.queries is not None
        assert self.keys is not None
        allowed = self.mask.allows(self.queries.unsqueeze(-1), self.keys.unsqueeze(-2))
        allowed = allowed & (self.keys >= 0).unsqueeze(-2)
        if self.segments is not None:
            allowed = allowed & (self.segments.unsqueeze(-1) == self.segments.unsqueeze(-2))
        return allowed.unsqueeze(-3)
