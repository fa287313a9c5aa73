"""Norms; `NORMS` holds the choices of `model.norm`."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lmlab.model.config import NORM_EPS, NormKind


class RMSNorm(nn.Module):
    """Divide by the root mean square, times a gain (Zhang and Sennrich 2019); float32 inside."""

    def __init__(
        self, d_model: int, eps: float = NORM_EPS, *, device: torch.device | str | None = None
    ):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model, device=device))
        self.fused: Callable[[Tensor, Tensor, float], Tensor] | None = None
        """A kernel that computes the same of (rows, d_model); None: the definition."""

    def reset_parameters(self) -> None:
        """Set the gain to 1."""
        nn.init.ones_(self.weight)

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """Normalise the last dimension; the result has the dtype of `x`."""
        if x.shape[-1:] != self.weight.shape:  # would broadcast
            raise ValueError(f"RMSNorm({len(self.weight)}) got an input of shape {tuple(x.shape)}")
        if self.fused is not None:
            return self.fused(x.reshape(-1, x.shape[-1]), self.weight, self.eps).view(x.shape)
        x32 = x.float()
        inverse = torch.rsqrt(x32.square().mean(dim=-1, keepdim=True) + self.eps)
        return (x32 * inverse * self.weight).to(x.dtype)


class LayerNorm(nn.Module):
    """Subtract the mean, divide by the standard deviation; gain and bias (Ba et al. 2016)."""

    def __init__(
        self, d_model: int, eps: float = NORM_EPS, *, device: torch.device | str | None = None
    ):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model, device=device))
        self.bias = nn.Parameter(torch.zeros(d_model, device=device))

    def reset_parameters(self) -> None:
        """Set the gain to 1 and the bias to 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """Normalise the last dimension; the result has the dtype of `x`."""
        # One kernel instead of nine; torch has none for RMSNorm on the CPU.
        gain, bias = self.weight.float(), self.bias.float()
        normed = F.layer_norm(x.float(), gain.shape, gain, bias, self.eps)
        return normed.to(x.dtype)


def no_norm(
    d_model: int, eps: float = NORM_EPS, *, device: torch.device | str | None = None
) -> nn.Module:
    """Return the identity."""
    return nn.Identity()


NORMS: dict[NormKind, Callable[..., nn.Module]] = {
    "rmsnorm": RMSNorm,
    "layernorm": LayerNorm,
    "none": no_norm,
}
