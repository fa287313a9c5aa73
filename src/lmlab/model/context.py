"""The inputs of a block besides the residual stream."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Int
from torch import Tensor

if TYPE_CHECKING:
    from lmlab.model.cache import LayerCache


@dataclass(frozen=True)
class Rows:
    """Rows of tokens that share some, so that all but the attention's products is computed once.

    A shared token has the same tokens before it in all of its rows.
    """

    token: Int[Tensor, "batch time"]
    """Which token stands in each place; any for padding at a row's end."""
    first: Int[Tensor, "tokens"]
    """The first place of each token, counted through the rows."""
    sharing: Int[Tensor, "batch 2+time"]
    """The same for the native core, see `lmlab.kernels.native.Sharing`."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """Positions, rotation and cache, passed to the attention of each layer."""

    positions: Tensor | None = None
    """Position of each token, (time) or (*batch, time); negative: padding; None: 0, 1, 2, ..."""
    rotation: Tensor | None = None
    """Cosine and sine for queries and keys, (..., time, half, 2); None: no rotation."""
    segments: Tensor | None = None
    """Example of each token, (*batch, time), in rows that hold several; None: one example a row."""
    rows: Rows | None = None
    """The rows that the tokens of a batch of one stand in; None: the batch's own rows."""
    cache: "LayerCache | None" = None
    """Cache of the layer; None: there are no earlier tokens."""


NO_CONTEXT = Context()
"""Positions 0, 1, 2, ..., no rotation, no cache."""
