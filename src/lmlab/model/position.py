"""Position encodings; `POSITIONS` holds the choices of `model/position`."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lmlab.model.config import (
    LinearScalingConfig,
    Llama3ScalingConfig,
    ModelConfig,
    NoScalingConfig,
    RoPEConfig,
    ScalingConfig,
)
from lmlab.model.layers import Embedding

Rotation = Float[Tensor, "*batch time half 2"]
"""Cosine and sine of the angles of each position."""


class Position(nn.Module):
    """No position encoding; the base of all others."""

    def add(
        self, x: Float[Tensor, "*batch time d_model"], positions: Int[Tensor, "*batch time"]
    ) -> Float[Tensor, "*batch time d_model"]:
        """Return the embeddings with their positions added.

        `positions` is (time) or has the leading dimensions of `x`; else ValueError.
        """
        check_positions(positions.shape, x.shape[:-1])
        return x

    def reset_parameters(self) -> None:
        """Compute tables anew, on the device they are on."""

    def rotation(self, positions: Int[Tensor, "*batch time"]) -> Rotation | None:
        """Return the rotation of queries and keys, or None for no rotation."""
        return None


NO_SCALING = NoScalingConfig(kind="none")


class RotaryEmbedding(Position):
    """Rotate pairs (2j, 2j+1) by `position * theta^(-2j / d_k)` (Su et al. 2021, section 3.4).

    `scaling` changes the frequencies for a context longer than the original one.
    """

    table: Tensor

    def __init__(
        self,
        theta: float,
        d_k: int,
        max_length: int,
        *,
        scaling: ScalingConfig = NO_SCALING,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.theta, self.scaling = theta, scaling
        table = torch.empty(max_length, (d_k + 1) // 2, 2, device=device)
        self.register_buffer("table", table, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Compute the table anew."""
        if self.table.is_meta:
            return
        length, half, _ = self.table.shape
        frequency = scaled(frequencies(self.theta, 2 * half), self.scaling)
        self.table.copy_(torch.stack(angles(frequency, length), dim=-1))

    def rotation(self, positions: Int[Tensor, "*batch time"]) -> Rotation:
        """Return cosine and sine at the given positions."""
        return self.table[positions]

    def forward(
        self, x: Float[Tensor, "... time d_k"], positions: Int[Tensor, "*batch time"]
    ) -> Float[Tensor, "... time d_k"]:
        """Return queries or keys rotated at the given positions.

        `positions` is (time) or has the leading dimensions of `x`, 1 where they are shared; else
        ValueError.
        """
        check_positions(positions.shape, x.shape[:-1])
        return rotate(x, self.rotation(positions))


def check_positions(positions: torch.Size, tokens: torch.Size) -> None:
    """Raise ValueError unless positions are (time) or have the dimensions of the tokens.

    A dimension of 1 before the time is shared. Other shapes would broadcast to wrong pairs.
    """
    shared = len(positions) == 1 or (
        len(positions) == len(tokens)
        and all(p in (1, n) for p, n in zip(positions, tokens, strict=True))
    )
    if not shared or positions[-1:] != tokens[-1:]:
        raise ValueError(
            f"positions of shape {tuple(positions)} do not fit tokens of shape {tuple(tokens)}; "
            f"give (time) or all {len(tokens)} dimensions, 1 where they are shared"
        )


def frequencies(theta: float, d: int) -> Float[Tensor, "half"]:
    """Return `theta^(-2j / d)` in float64."""
    return theta ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)


def scaled(frequency: Float[Tensor, "half"], scaling: ScalingConfig) -> Float[Tensor, "half"]:
    """Return the frequencies after the scaling for a longer context."""
    if isinstance(scaling, LinearScalingConfig):
        return frequency / scaling.factor
    if isinstance(scaling, Llama3ScalingConfig):
        turns = scaling.original_context_length * frequency / (2 * torch.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        kept = ((turns - low) / (high - low)).clamp(0, 1)  # 1: short wavelength, 0: long
        return kept * frequency + (1 - kept) * frequency / scaling.factor
    return frequency


def angles(frequency: Float[Tensor, "half"], length: int) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of `position * frequency`, each (length, half).

    Computed in float64: at position 1000 a float32 angle is wrong in the fifth digit.
    """
    angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Float[Tensor, "... time d_k"], rotation: Rotation) -> Float[Tensor, "... time d_k"]:
    """Rotate adjacent pairs of the last dimension; float32 inside, the dtype of `x` outside."""
    pairs = x.float().unflatten(-1, (-1, 2))
    # A compiler fuses real arithmetic only, and MPS lacks some complex operations.
    if torch.compiler.is_compiling() or x.device.type == "mps":
        (even, odd), (cos, sin) = pairs.unbind(-1), rotation.unbind(-1)
        turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    else:  # the same in one kernel: (even + i odd) (cos + i sin)
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rotation))
    return turned.flatten(-2).to(x.dtype)


class SinusoidalPosition(Position):
    """Add `sin` in even columns and `cos` in odd ones (Vaswani et al. 2017, section 3.5)."""

    table: Tensor

    def __init__(
        self, d_model: int, max_length: int, *, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        table = torch.empty(max_length, d_model, device=device)
        self.register_buffer("table", table, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Compute the table anew."""
        if self.table.is_meta:
            return
        length, d_model = self.table.shape
        cos, sin = angles(frequencies(10000.0, d_model), length)
        self.table.copy_(torch.stack((sin, cos), dim=-1).flatten(-2))

    def add(
        self, x: Float[Tensor, "*batch time d_model"], positions: Int[Tensor, "*batch time"]
    ) -> Float[Tensor, "*batch time d_model"]:
        """Return the embeddings with their positions added."""
        check_positions(positions.shape, x.shape[:-1])
        return x + F.embedding(positions, self.table)


class LearnedPosition(Position):
    """Add a learned vector for each position (Radford et al. 2019)."""

    def __init__(
        self, d_model: int, max_length: int, *, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        self.embedding = Embedding(max_length, d_model, device=device)

    def add(
        self, x: Float[Tensor, "*batch time d_model"], positions: Int[Tensor, "*batch time"]
    ) -> Float[Tensor, "*batch time d_model"]:
        """Return the embeddings with their positions added."""
        check_positions(positions.shape, x.shape[:-1])
        return x + self.embedding(positions)


Device = torch.device | str | None


def _rope(config: ModelConfig, device: Device) -> Position:
    assert isinstance(config.position, RoPEConfig)
    return RotaryEmbedding(
        config.position.theta,
        config.attention_width,
        config.context_length,
        scaling=config.position.scaling,
        device=device,
    )


POSITIONS: dict[str, Callable[[ModelConfig, Device], Position]] = {
    "rope": _rope,
    "sinusoidal": lambda c, device: SinusoidalPosition(c.d_model, c.context_length, device=device),
    "learned": lambda c, device: LearnedPosition(c.d_model, c.context_length, device=device),
    "none": lambda config, device: Position(),
}
