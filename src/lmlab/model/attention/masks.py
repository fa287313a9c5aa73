"""Attention masks: the keys a query attends to, and the keys a cache has to keep."""

from dataclasses import dataclass
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
