"""One run of the planner: what it trains, and what came out."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lmlab.scaling.law import FLOPS_PER_PARAMETER
from lmlab.scaling.shapes import Shape, ShapeRange


@dataclass(frozen=True, order=True)
class Config:
    """The configuration of a run, with the names of the course's training API."""

    d_model: int
    num_layers: int
    num_heads: int
    batch_size: int
    learning_rate: float
    train_flops: int

    @property
    def parameters(self) -> int:
        """Parameters without embeddings."""
        return Shape(self.d_model, self.num_layers, self.num_heads).parameters

    @property
    def tokens(self) -> float:
        """Tokens of training: C = 6 N D."""
        return self.train_flops / (FLOPS_PER_PARAMETER * self.parameters)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Return the configuration of stored values; raises KeyError, TypeError or ValueError."""
        rate = float(values["learning_rate"])
        whole = {f.name: int(values[f.name]) for f in fields(cls) if f.name != "learning_rate"}
        return cls(**whole, learning_rate=rate)


@dataclass(frozen=True)
class Trial:
    """A run that finished."""

    config: Config
    loss: float


@dataclass(frozen=True)
class Space:
    """What the planner may choose from."""

    shapes: ShapeRange
    batch_sizes: tuple[int, ...]
    learning_rates: tuple[float, float]
    train_flops: tuple[int, ...]
    least_tokens: float = 0.0
    """Of a run; a shorter one tells nothing."""


COURSE = Space(
    ShapeRange(widths=(64, 1024), depths=(2, 24), heads=(2, 16)),
    batch_sizes=(128, 256),
    learning_rates=(1e-4, 1e-3),
    train_flops=(*(digit * 10**power for power in range(13, 18) for digit in (1, 3, 6)), 10**18),
)
"""Ranges of the training API of Stanford CS336, assignment 3."""
COURSE_BUDGET = 2 * 10**18
"""FLOPs that a key of the course may spend."""
