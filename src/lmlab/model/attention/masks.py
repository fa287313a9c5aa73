"""Which tokens a token sees, and which are still to be seen by any later one."""

from dataclasses import dataclass
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
