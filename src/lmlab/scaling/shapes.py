"""Shapes of real models: widths in multiples of the head's, depths in proportion."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

HEAD_DIM = 64
WIDTH_PER_LAYER = 48
"""Preferred d_model / num_layers."""
PREFERENCE = 0.03
"""Weight of the squared log of the aspect ratio against that of the size."""


@dataclass(frozen=True, order=True)
class Shape:
    """Width, depth and heads of a model."""

    d_model: int
    num_layers: int
    num_heads: int

    @property
    def parameters(self) -> int:
        """Parameters without embeddings: 12 L d^2 (Kaplan et al. 2020)."""
        return 12 * self.num_layers * self.d_model**2


@dataclass(frozen=True)
class ShapeRange:
    """The shapes that may be trained."""

    widths: tuple[int, int]
    depths: tuple[int, int]
    heads: tuple[int, int]

    def all(self) -> list[Shape]:
        """Return all shapes whose width is a multiple of 64, ascending by parameters."""
        first, last = self.widths
        widths = range(-(-first // HEAD_DIM) * HEAD_DIM, last + 1, HEAD_DIM)
        shapes = [
            Shape(width, depth, heads)
            for width in widths
            if (heads := self._heads(width)) is not None
            for depth in range(self.depths[0], self.depths[1] + 1)
        ]
        return sorted(shapes, key=lambda shape: (shape.parameters, shape))

    def _heads(self, width: int) -> int | None:
        """Return the number of heads of about 64; it divides the width, each head is even."""
        low, high = self.heads
        fitting = [h for h in range(low, high + 1) if width % h == 0 and width // h % 2 == 0]
        return min(fitting, key=lambda h: abs(width / h - HEAD_DIM), default=None)

    def by_distance(self, parameters: float) -> list[Shape]:
        """Return all shapes, first those of about this size with d_model / num_layers near 48."""
        return sorted(self.all(), key=lambda shape: (_distance(shape, parameters), shape))

    def nearest(self, parameters: float) -> Shape:
        """Return the shape of about this size, d_model / num_layers near 48."""
        return min(self.all(), key=lambda shape: (_distance(shape, parameters), shape))

    def spread(self, centre: float, factors: Sequence[float]) -> list[Shape]:
        """Return different shapes around a size, ascending."""
        return sorted(
            {self.nearest(centre * factor) for factor in factors},
            key=lambda shape: shape.parameters,
        )


def _distance(shape: Shape, parameters: float) -> float:
    size = float(np.log(shape.parameters / parameters))
    aspect = float(np.log(shape.d_model / shape.num_layers / WIDTH_PER_LAYER))
    return size**2 + PREFERENCE * aspect**2
