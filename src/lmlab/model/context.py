"""The inputs of a block besides the residual stream."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from lmlab.model.cache import LayerCache


@dataclass(frozen=True, kw_only=True)
class Context:
    """Positions, rotation and cache, passed to the attention of each layer."""

    positions: Tensor | None = None
    """Position of each token, (time) or (*batch, time); negative: padding; None: 0, 1, 2, ..."""
    rotation: Tensor | None = None
    """Cosine and sine for queries and keys, (..., time, half, 2); None: no rotation."""
    cache: "LayerCache | None" = None
    """Cache of the layer; None: there are no earlier tokens."""


NO_CONTEXT = Context()
"""Positions 0, 1, 2, ..., no rotation, no cache."""
