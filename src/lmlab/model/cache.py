"""What a model remembers of the tokens it has read, so that the next one costs one token's work."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmlab.model.attention.masks import Mask


class KeyValueCache:
    """Keys and values of one layer, of which those are dropped that no later token can see.

    Room is made by doubling, so that a token costs no copy of the whole cache.
    """

    SMALLEST = 64

    def __init__(self, mask: Mask) -> None:
        self.mask = mask
        self.length = 0
        self._keys = self._values = self._positions = torch.empty(0)

    def extend(
        self,
        k: Float[Tensor, "batch kv_heads time d_k"],
        v: Float[Tensor, "batch kv_heads time d_k"],
        positions: Int[Tensor, "*batch time"],
    ) -> tuple[
        Float[Tensor, "batch kv_heads keys d_k"],
        Float[Tensor, "batch kv_heads keys d_k"],
        Int[Tensor, "*batch keys"],
    ]:
        """Append keys and values, and return all that are held, with their positions."""
        new = k.shape[-2]
        if self.length + new > self._positions.shape[-1] or not self.length:
            self._make_room(k, v, positions)
        here = slice(self.length, self.length + new)
        self._keys[..., here, :], self._values[..., here, :] = k, v
        self._positions[..., here] = positions
        self.length += new
        held = slice(0, self.length)
        return self._keys[..., held, :], self._values[..., held, :], self._positions[..., held]

    def _make_room(self, k: Tensor, v: Tensor, positions: Tensor) -> None:
        old = (self._keys, self._values, self._positions)
        kept = None
        if self.length:
            held = self._positions[..., : self.length]
            needed = self.mask.keeps(held, held.amax(dim=-1, keepdim=True))
            kept = needed.reshape(-1, self.length).any(dim=0).nonzero().squeeze(-1)
            self.length = len(kept)
        room = max(2 * (self.length + k.shape[-2]), self.SMALLEST)
        self._keys, self._values = (x.new_empty(*x.shape[:-2], room, x.shape[-1]) for x in (k, v))
        self._positions = positions.new_empty(*positions.shape[:-1], room)
        if kept is not None:
            self._keys[..., : self.length, :] = old[0][..., kept, :]
            self._values[..., : self.length, :] = old[1][..., kept, :]
            self._positions[..., : self.length] = old[2][..., kept]

    @property
    def numel(self) -> int:
        """Numbers in memory."""
        return self._keys.numel() + self._values.numel()


class StateCache:
    """The state of linear attention: the sum of `k^T v` and of `k` over the tokens read."""

    def __init__(self) -> None:
        self._state: Tensor | None = None
        self._total: Tensor | None = None

    def read(
        self,
        k: Float[Tensor, "batch kv_heads time d_k"],
        v: Float[Tensor, "batch kv_heads time d_v"],
    ) -> tuple[Float[Tensor, "batch kv_heads d_k d_v"], Float[Tensor, "batch kv_heads d_k"]]:
        """Return both sums; before the first token zeros, in the shape for `k` and `v`."""
        if self._state is None or self._total is None:
            return k.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1]), k.new_zeros(
                *k.shape[:2], k.shape[-1]
            )
        return self._state, self._total

    def write(
        self,
        state: Float[Tensor, "batch kv_heads d_k d_v"],
        total: Float[Tensor, "batch kv_heads d_k"],
    ) -> None:
        """Replace both sums."""
        self._state, self._total = state, total

    @property
    def numel(self) -> int:
        """Numbers in memory."""
        return sum(x.numel() for x in (self._state, self._total) if x is not None)


LayerCache = KeyValueCache | StateCache


class Cache:
    """The caches of all layers, and how many tokens they have read."""

    def __init__(self, layers: list[LayerCache]) -> None:
        self.layers = layers
        self.length = 0
