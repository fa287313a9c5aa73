"""What a block needs besides its input."""

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from lmlab.model.cache import LayerCache


class Context(NamedTuple):
    """Positions, their rotation and the cache, handed down to the attention of each layer."""

    positions: Tensor | None = None
    """Of the inputs, (time) or (batch, time); negative ones are padding. None: 0, 1, 2, ..."""
    rotation: Tensor | None = None
    """Cosines and sines for queries and keys, (..., time, half, 2); None: they are not rotated."""
    cache: "LayerCache | None" = None
    """Keys and values of the tokens before; None: there are none."""
