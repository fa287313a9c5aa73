"""Norms; `NORMS` holds the choices of `model.norm`."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lmlab.kernels import native
from lmlab.kernels.once import once_differentiable
from lmlab.model.config import NORM_EPS, NormKind
from lmlab.processor import computed_here


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
        if _trains_on_cpu(x, self.weight):
            y = _RMSNorm.apply(x, self.weight, self.eps)
            assert isinstance(y, Tensor)
            return y
        if not torch.is_grad_enabled() and _by_native_core(x, self.weight):
            return native.norm(x, self.weight, self.eps)[0]
        return _rms_norm(x, self.weight, self.eps)[0]


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the result and the inverse root mean squares."""
    x32 = x.float()
    inverse = torch.rsqrt(x32.square().mean(dim=-1, keepdim=True) + eps)
    return (x32 * inverse * weight).to(x.dtype), inverse


def _by_native_core(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()
        and native.computes(x, weight)
        and x.dtype in native.DTYPES
        and weight.dtype == torch.float32
    )


def _trains_on_cpu(x: Tensor, weight: Tensor) -> bool:
    """Return whether the gradient is computed by formula; a compiler fuses the definition's."""
    return (
        computed_here(x)
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and type(weight) is nn.Parameter
        and weight.dtype == torch.float32
    )


class _RMSNorm(torch.autograd.Function):
    """The gradient in a third of the passes over memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.native = _by_native_core(x, weight)
        y, inverse = (native.norm if ctx.native else _rms_norm)(x, weight, eps)
        ctx.save_for_backward(x, weight, inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, inverse = ctx.saved_tensors
        if ctx.native:
            return *native.norm_backward(grad, x, weight, inverse), None
        # The kernel reads memory in order, whatever the strides say.
        grad, x32, inverse = (each.contiguous() for each in (grad.float(), x.float(), inverse))
        # LayerNorm's gradient about a mean of 0, which also subtracts the mean of grad * weight.
        x_grad, weight_grad, _ = torch.ops.aten.native_layer_norm_backward(
            grad,
            x32,
            weight.shape,
            torch.zeros_like(inverse),
            inverse,
            weight.contiguous(),
            None,
            [True, True, False],
        )
        with torch.autocast("cpu", enabled=False):
            means = (grad @ weight).unsqueeze(-1) / len(weight)
        return x_grad.add_(means.mul_(inverse)).to(x.dtype), weight_grad, None


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
