"""Caches for decoding: preallocated once, written in place, one row for each sequence."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmlab.kernels.native import INSTRUCTIONS
from lmlab.model.attention.masks import AttentionPattern, Mask

ALL_ROWS = slice(None)
PART = 16
BLOCK = PART if INSTRUCTIONS else 64
"""On the CPU slots are read in whole blocks: torch's kernels sum the ends of other lengths
differently, and a sequence's result would depend on the longest one in its batch. Fewer slots are
one block, a multiple of PART. The native core reads what a sequence has, in blocks of any length.
"""


class Slots:
    """Where tokens are stored in the caches of all layers with the same mask.

    A mask maps a position to a slot; a window reuses the slots of hidden tokens.
    """

    def __init__(self, mask: Mask, rows: int, longest: int, device: torch.device) -> None:
        self.mask = mask
        slots = mask.slots(longest)
        self.block = min(BLOCK, -(-slots // PART) * PART) if device.type == "cpu" else 1
        self.capacity = self._whole_blocks(slots)
        self.positions = torch.full((rows, self.capacity), -1, device=device)
        self.rows = ALL_ROWS
        self.used = 0
        """Slots read, in whole blocks, if each row has a single new token."""
        self.filled = 0
        """Slots that hold a token of any row, and those before them."""
        self.pattern: AttentionPattern
        self.target: int | Tensor | None = None
        """Slot of a single new token, of all rows or (rows, 1, 1, 1); None: several tokens."""
        self.old_keys: int | None = None
        """Slots read beside the new tokens, if there are several; None: the cache was empty."""
        self.kept: tuple[Tensor, Tensor, Tensor]
        """Row, time and slot of each new token that is stored, if there are several."""

    def prepare(self, rows: slice, positions: Int[Tensor, "rows time"]) -> None:
        """Reserve the slots of new tokens; negative positions are padding and are not stored."""
        self.rows = rows
        lowest, highest = (int(bound) for bound in positions.aminmax())
        self.filled = max(self.filled, self.mask.slots(highest + 1))
        here = self.positions[rows]
        if positions.shape[1] == 1 and lowest >= 0:
            self._prepare_one(here, positions, lowest == highest, highest)
        else:
            self._prepare_many(here, positions, lowest, highest)

    def _whole_blocks(self, slots: int) -> int:
        return -(-slots // self.block) * self.block

    def _prepare_one(self, here: Tensor, positions: Tensor, equal: bool, highest: int) -> None:
        slot = self.mask.slot(positions)
        here.scatter_(1, slot, positions)
        filled = self.mask.slots(highest + 1)
        self.used = self._whole_blocks(filled)
        self.target = int(slot[0, 0]) if equal else slot[:, :, None, None]
        keys = here[:, : self.used]
        unrestricted = equal and self.mask.attends_to_all_slots and filled == self.used
        self.pattern = AttentionPattern(self.mask, positions, keys, unrestricted)

    def _prepare_many(self, here: Tensor, positions: Tensor, lowest: int, highest: int) -> None:
        self.target = None
        time = positions.shape[1]
        latest = positions.amax(dim=1, keepdim=True)
        row, column = ((positions >= 0) & self.mask.keeps(positions, latest)).nonzero(as_tuple=True)
        stored = positions[row, column]
        self.kept = (row, column, self.mask.slot(stored))
        if bool((here < 0).all()):
            self.old_keys = None
            whole = lowest == 0 and highest == time - 1
            self.pattern = AttentionPattern(
                self.mask, *((None, None) if whole else (positions,) * 2)
            )
        else:
            self.old_keys = self.capacity
            self.pattern = AttentionPattern(
                self.mask, positions, torch.cat((here, positions), dim=1)
            )
        here[row, self.kept[2]] = stored


class KeyValueCache:
    """Keys and values of one layer, (rows, kv_heads, slots, d_k) each."""

    def __init__(self, mask: Mask) -> None:
        self.mask = mask
        self.slots: Slots
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def extend(
        self,
        k: Float[Tensor, "rows kv_heads time d_k"],
        v: Float[Tensor, "rows kv_heads time d_k"],
    ) -> tuple[Float[Tensor, "rows kv_heads keys d_k"], Float[Tensor, "rows kv_heads keys d_k"]]:
        """Store the new keys and values, and return all that `slots.pattern` is about."""
        slots = self.slots
        if self.keys is None or self.values is None:
            rows = len(slots.positions)
            self.keys, self.values = (
                x.new_zeros(rows, x.shape[1], slots.capacity, x.shape[3]) for x in (k, v)
            )
        return self._extend(self.keys[slots.rows], k), self._extend(self.values[slots.rows], v)

    def _extend(self, held: Tensor, new: Tensor) -> Tensor:
        slots = self.slots
        if isinstance(slots.target, int):
            held[:, :, slots.target] = new[:, :, 0]
            return held[:, :, : slots.used]
        if slots.target is not None:
            held.scatter_(2, slots.target.expand_as(new), new)
            return held[:, :, : slots.used]
        row, column, slot = slots.kept
        # A window's slots are written after they are read.
        result = new if slots.old_keys is None else torch.cat((held, new), dim=2)
        held[row, :, slot] = new[row, :, column]
        return result

    def clear(self, rows: slice) -> None:
        """Nothing to do: `Slots.positions` decides which slots are read."""

    def copy_rows(self, sources: Sequence[int], first: int) -> None:
        """Copy sequences' keys and values to consecutive rows."""
        for held in self.tensors:
            used = held[:, :, : self.slots.filled]
            used[first : first + len(sources)] = used[sources]

    @property
    def tensors(self) -> Sequence[Tensor]:
        """What is allocated."""
        return [x for x in (self.keys, self.values) if x is not None]


class StateCache:
    """The state of linear attention: the sums of `k^T v` and of `k` over the tokens read."""

    def __init__(self) -> None:
        self.num_rows = 0
        self.rows = ALL_ROWS
        self.state: Tensor | None = None
        self.total: Tensor | None = None

    def read(
        self,
        k: Float[Tensor, "rows kv_heads time d_k"],
        v: Float[Tensor, "rows kv_heads time d_v"],
    ) -> tuple[Float[Tensor, "rows kv_heads d_k d_v"], Float[Tensor, "rows kv_heads d_k"]]:
        """Return both sums; before the first token they are zeros."""
        if self.state is None or self.total is None:
            rows = self.num_rows or len(k)
            self.state = k.new_zeros(rows, k.shape[1], k.shape[-1], v.shape[-1])
            self.total = k.new_zeros(rows, k.shape[1], k.shape[-1])
        return self.state[self.rows], self.total[self.rows]

    def write(
        self,
        state: Float[Tensor, "rows kv_heads d_k d_v"],
        total: Float[Tensor, "rows kv_heads d_k"],
    ) -> None:
        """Replace both sums."""
        assert self.state is not None
        assert self.total is not None
        self.state[self.rows], self.total[self.rows] = state, total

    def clear(self, rows: slice) -> None:
        """Forget the rows' sequences."""
        for held in self.tensors:
            held[rows] = 0

    def copy_rows(self, sources: Sequence[int], first: int) -> None:
        """Copy sequences' states to consecutive rows."""
        for held in self.tensors:
            held[first : first + len(sources)] = held[sources]

    @property
    def tensors(self) -> Sequence[Tensor]:
        """What is allocated."""
        return [x for x in (self.state, self.total) if x is not None]


LayerCache = KeyValueCache | StateCache


class Cache:
    """The caches of all layers.

    The first forward pass allocates `num_rows` rows of `longest` tokens, or as many rows as its
    batch has. A pass reads and writes the rows in `rows`. Positions of a row follow one another
    without gaps.
    """

    def __init__(self, layers: list[LayerCache], longest: int, num_rows: int | None = None) -> None:
        self.layers = layers
        self.longest = longest
        self.num_rows = num_rows
        self.rows = ALL_ROWS
        self.length = 0
        """Tokens read, when all rows are read together."""
        self._slots: dict[Mask, Slots] = {}

    def prepare(self, positions: Int[Tensor, "*rows time"], batch: int) -> None:
        """Make room for the tokens of a forward pass, in all layers."""
        if self.num_rows is None:
            self.num_rows = batch
        if positions.ndim == 1:
            positions = positions.expand(batch, -1)
        for layer in self.layers:
            if isinstance(layer, StateCache):
                layer.num_rows, layer.rows = self.num_rows, self.rows
            elif layer.mask not in self._slots:
                self._slots[layer.mask] = Slots(
                    layer.mask, self.num_rows, self.longest, positions.device
                )
            if isinstance(layer, KeyValueCache):
                layer.slots = self._slots[layer.mask]
        for slots in self._slots.values():
            slots.prepare(self.rows, positions)
        self.length += positions.shape[1]

    def clear(self, rows: slice) -> None:
        """Make rows ready for other sequences."""
        for slots in self._slots.values():
            slots.positions[rows] = -1
        for layer in self.layers:
            layer.clear(rows)

    def copy_rows(self, sources: Sequence[int], first: int) -> None:
        """Copy sequences to as many rows from `first` on."""
        for slots in self._slots.values():
            slots.positions[first : first + len(sources)] = slots.positions[sources]
        for layer in self.layers:
            layer.copy_rows(sources, first)

    @property
    def bytes(self) -> int:
        """Bytes of keys, values and states that are allocated."""
        return sum(x.nbytes for layer in self.layers for x in layer.tensors)
