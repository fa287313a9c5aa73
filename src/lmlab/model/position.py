"""How a model knows where a token stands; `POSITIONS` are the choices of `model/position`."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lmlab.model.config import ModelConfig, RoPEConfig
from lmlab.model.layers import Embedding

Rotation = Float[Tensor, "*batch time half 2"]
"""Cosine and sine of each position's angles."""


class Position(nn.Module):
    """A model without positions; the choices override what they do."""

    def add(
        self, x: Float[Tensor, "batch time d_model"], positions: Int[Tensor, "*batch time"]
    ) -> Float[Tensor, "batch time d_model"]:
        """Return the embeddings with their positions added."""
        return x

    def rotation(self, positions: Int[Tensor, "*batch time"]) -> Rotation | None:
        """Return what queries and keys are rotated by; None: they are not."""
        return None


class RotaryEmbedding(Position):
    """Rotate pairs (2j, 2j+1) by `position * theta^(-2j / d_k)` (Su et al. 2021, section 3.4)."""

    table: Tensor

    def __init__(
        self,
        theta: float,
        d_k: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        table = torch.stack(angles(theta, d_k, max_length), dim=-1)
        self.register_buffer("table", table.to(device), persistent=False)

    def rotation(self, positions: Int[Tensor, "*batch time"]) -> Rotation:
        """Return the angles' cosines and sines at the given positions."""
        return self.table[positions]

    def forward(
        self, x: Float[Tensor, "... time d_k"], positions: Int[Tensor, "*batch time"]
    ) -> Float[Tensor, "... time d_k"]:
        """Rotate queries or keys at the given positions."""
        return rotate(x, self.rotation(positions))


def angles(theta: float, d: int, length: int) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of `position * theta^(-2j / d)`, each (length, d / 2).

    In float64 until the last moment: at position 1000 a float32 angle is off in the fifth digit.
    """
    frequency = theta ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Float[Tensor, "... time d_k"], rotation: Rotation) -> Float[Tensor, "... time d_k"]:
    """Rotate adjacent pairs of the last dimension; float32 inside, the dtype of `x` outside."""
    pairs = x.float().unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # the compiler fuses real arithmetic, but not complex
        (even, odd), (cos, sin) = pairs.unbind(-1), rotation.unbind(-1)
        turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    else:  # the same as one kernel: (even + i odd) (cos + i sin)
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rotation))
    return turned.flatten(-2).to(x.dtype)


class SinusoidalPosition(Position):
    """Add `sin` in even columns and `cos` in odd ones (Vaswani et al. 2017, section 3.5)."""

    table: Tensor

    def __init__(
        self, d_model: int, max_length: int, *, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        cos, sin = angles(10000.0, d_model, max_length)
        table = torch.stack((sin, cos), dim=-1).flatten(-2)
        self.register_buffer("table", table.to(device), persistent=False)

    def add(
        self, x: Float[Tensor, "batch time d_model"], positions: Int[Tensor, "*batch time"]
    ) -> Float[Tensor, "batch time d_model"]:
        """Return the embeddings with their positions added."""
        return x + F.embedding(positions, self.table)


class LearnedPosition(Position):
    """Add a learned vector for each position (Radford et al. 2019)."""

    def __init__(
        self, d_model: int, max_length: int, *, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        self.embedding = Embedding(max_length, d_model, device=device)

    def add(
        self, x: Float[Tensor, "batch time d_model"], positions: Int[Tensor, "*batch time"]
    ) -> Float[Tensor, "batch time d_model"]:
        """Return the embeddings with their positions added."""
        return x + self.embedding(positions)


Device = torch.device | str | None


def _rope(config: ModelConfig, device: Device) -> Position:
    assert isinstance(config.position, RoPEConfig)
    theta = config.position.theta
    return RotaryEmbedding(theta, config.attention_width, config.context_length, device=device)


POSITIONS: dict[str, Callable[[ModelConfig, Device], Position]] = {
    "rope": _rope,
    "sinusoidal": lambda c, device: SinusoidalPosition(c.d_model, c.context_length, device=device),
    "learned": lambda c, device: LearnedPosition(c.d_model, c.context_length, device=device),
    "none": lambda config, device: Position(),
}
