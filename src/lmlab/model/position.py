"""How a model knows where a token stands."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from lmlab.model.config import PositionConfig

Rotation = tuple[Float[Tensor, "time half"], Float[Tensor, "time half"]]
"""Cosine and sine of each position's angles."""


class RotaryEmbedding(nn.Module):
    """Rotate the pairs (2j, 2j+1) by `position * theta^(-2j / d_k)` (Su et al. 2021, section 3.4)."""

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        theta: float,
        d_k: int,
        max_length: int,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        # float64 until the last moment: at position 1000 a float32 angle is off in the fifth digit.
        frequency = theta ** (-torch.arange(0, d_k, 2, dtype=torch.float64) / d_k)
        angle = torch.outer(torch.arange(max_length, dtype=torch.float64), frequency)
        self.register_buffer("cos", angle.cos().float().to(device), persistent=False)
        self.register_buffer("sin", angle.sin().float().to(device), persistent=False)

    def rotation(self, positions: Int[Tensor, "time"]) -> Rotation:
        """Return the angles' cosines and sines at the given positions."""
        return self.cos[positions], self.sin[positions]

    def forward(
        self, x: Float[Tensor, "... time d_k"], positions: Int[Tensor, "time"]
    ) -> Float[Tensor, "... time d_k"]:
        """Rotate queries or keys at the given positions."""
        return rotate(x, self.rotation(positions))


def rotate(x: Float[Tensor, "... time d_k"], rotation: Rotation) -> Float[Tensor, "... time d_k"]:
    """Rotate adjacent pairs of the last dimension; float32 inside, the dtype of `x` outside."""
    cos, sin = rotation
    even, odd = rearrange(x.float(), "... (pairs two) -> two ... pairs", two=2)
    pair = (even * cos - odd * sin, even * sin + odd * cos)
    return rearrange(torch.stack(pair), "two ... pairs -> ... (pairs two)").to(x.dtype)


def build_position(
    config: PositionConfig,
    head_dim: int,
    context_length: int,
    device: torch.device | str | None = None,
) -> RotaryEmbedding:
    """Build the choice of `model/position`."""
    return RotaryEmbedding(config.theta, head_dim, context_length, device=device)
