"""Which tokens a token sees, and which are still to be seen by any later one."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class Mask(Protocol):
    """A rule over positions; what it decides about is broadcast."""

    def __hash__(self) -> int: ...

    def sees(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Whether the query's token attends to the key's."""

    def keeps(self, key: Int[Tensor, "..."], latest: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Whether any token after position `latest` can still attend to the key's."""

    def kept(self, length: int) -> int:
        """Return how many keys a cache must hold when the next token is at position `length`."""

    def slot(self, position: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Return where a cache stores a position; tokens seen together have different slots."""

    def slots(self, length: int) -> int:
        """Return how many slots the positions below `length` use; they come first."""

    @property
    def sees_all_slots(self) -> bool:
        """Whether the token stored last sees all slots in use."""


@dataclass(frozen=True)
class Causal:
    """Every token sees itself and all before it."""

    def sees(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Whether the key is not in the future."""
        return key <= query

    def keeps(self, key: Int[Tensor, "..."], latest: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Always."""
        return torch.ones_like(key + latest, dtype=torch.bool)

    def kept(self, length: int) -> int:
        """All."""
        return length

    def slot(self, position: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """One slot for each position."""
        return position

    def slots(self, length: int) -> int:
        """As many as tokens."""
        return length

    @property
    def sees_all_slots(self) -> bool:
        """Yes."""
        return True


@dataclass(frozen=True)
class SlidingWindow:
    """Every token sees the last `window`, itself included."""

    window: int

    def sees(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Whether the key is in the window that ends at the query."""
        return (key <= query) & (query - key < self.window)

    def keeps(self, key: Int[Tensor, "..."], latest: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Whether the next token's window still holds the key."""
        return latest + 1 - key < self.window

    def kept(self, length: int) -> int:
        """The window without the next token itself."""
        return min(length, self.window - 1)

    def slot(self, position: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """A ring of `window` slots."""
        return position % self.window

    def slots(self, length: int) -> int:
        """At most the window."""
        return min(length, self.window)

    @property
    def sees_all_slots(self) -> bool:
        """Yes: the ring holds the window."""
        return True


@dataclass(frozen=True)
class Strided:
    """Every token sees the last `window`, and the tokens 0, stride, 2 stride, ..."""

    stride: int
    window: int

    def sees(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Whether the key is in the local band or on the stride."""
        return (key <= query) & ((query - key < self.window) | (key % self.stride == 0))

    def keeps(self, key: Int[Tensor, "..."], latest: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Whether the next token's band still holds the key, or the key is on the stride."""
        return (latest + 1 - key < self.window) | (key % self.stride == 0)

    def kept(self, length: int) -> int:
        """The band, and the multiples of the stride before it."""
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
    def sees_all_slots(self) -> bool:
        """No: the ring's slots of multiples of the stride are empty or out of date."""
        return False


@dataclass(frozen=True)
class Visibility:
    """Which key each query sees, by the positions of both; None: 0, 1, 2, ... on both sides."""

    mask: Mask
    queries: Int[Tensor, "*batch time"] | None = None
    keys: Int[Tensor, "*batch keys"] | None = None
    unrestricted: bool = False
    """Whether every query sees every key, so that a kernel needs no mask."""

    @property
    def causal(self) -> bool:
        """Whether a kernel's own causal mask says the same."""
        return self.queries is None and isinstance(self.mask, Causal)

    def dense(self, time: int, device: torch.device) -> Bool[Tensor, "*batch heads time keys"]:
        """Return the matrix of who sees whom; nobody sees padding, which has negative positions."""
        if self.queries is None or self.keys is None:
            here = torch.arange(time, device=device)
            return self.mask.sees(here[:, None], here)
        return self._dense

    @cached_property
    def _dense(self) -> Bool[Tensor, "*batch heads time keys"]:
        """Computed once for all layers with the same mask."""
        assert self.queries is not None
        assert self.keys is not None
        seen = self.mask.sees(self.queries.unsqueeze(-1), self.keys.unsqueeze(-2))
        return (seen & (self.keys >= 0).unsqueeze(-2)).unsqueeze(-3)
