"""Linear products in eight bits: tensorwise float8, and MX blocks, which are emulated."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lmlab.kernels.mx import quantize_mx
from lmlab.kernels.once import once_differentiable

ALIGNMENT = 16
"""Inputs, outputs and tokens of a float8 product are multiples of it."""
_FP8_CAPABILITY = (8, 9)


def low_precision_problem(precision: str, device: torch.device) -> str | None:
    """Return why the device cannot train in the precision; None: it can."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if precision == "fp8" and capability < _FP8_CAPABILITY:
            has = ".".join(map(str, capability))
            return f"needs compute capability 8.9 (Ada, Hopper or later), the device has {has}"
        return None
    try:
        x = torch.ones(16, 16, device=device)
        PRODUCTS[precision](x, x, torch.float32)
    except (RuntimeError, NotImplementedError, TypeError):
        return f"is not supported on '{device}' by torch {torch.__version__}"
    return None


def fp8_product(
    x: Float[Tensor, "... d_in"], weight: Float[Tensor, "d_out d_in"], dtype: torch.dtype
) -> Float[Tensor, "... d_out"]:
    """Return `x W^T` of float8 numbers with one scale a tensor, in `dtype`.

    Inputs and weights are E4M3, gradients E5M2 (Micikevicius et al. 2022). Raises ValueError when
    d_in or d_out is no multiple of 16.
    """
    if weight.shape[0] % ALIGNMENT or weight.shape[1] % ALIGNMENT:
        raise ValueError(
            f"float8 products need widths that are multiples of {ALIGNMENT}, got a weight of "
            f"{tuple(weight.shape)}"
        )
    y = _Fp8Linear.apply(x.reshape(-1, x.shape[-1]), weight, dtype)
    assert isinstance(y, Tensor)
    return y.view(*x.shape[:-1], len(weight))


def mxfp8_product(
    x: Float[Tensor, "... d_in"], weight: Float[Tensor, "d_out d_in"], dtype: torch.dtype
) -> Float[Tensor, "... d_out"]:
    """Return `x W^T` of numbers rounded to MXFP8 along the summed dimension, in `dtype`.

    All are E4M3 with scales rounded up (Rouhani et al. 2023). Emulated: the rounded numbers are
    multiplied in bfloat16 on CUDA, which represents them exactly, and in float32 elsewhere.
    """
    y = _MXLinear.apply(x.reshape(-1, x.shape[-1]), weight, dtype)
    assert isinstance(y, Tensor)
    return y.view(*x.shape[:-1], len(weight))


Product = Callable[[Tensor, Tensor, torch.dtype], Tensor]
PRODUCTS: dict[str, Product] = {
    "fp8": fp8_product,
    "mxfp8": mxfp8_product,
}
"""Products by the name of a precision."""


class _Fp8Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        tokens = len(x)
        x8, x_scale = _scaled(_padded(x), torch.float8_e4m3fn)
        w8, w_scale = _scaled(weight, torch.float8_e4m3fn)
        ctx.save_for_backward(x8, x_scale, w8, w_scale)
        ctx.dtypes = x.dtype, weight.dtype
        return _multiply(x8, w8, x_scale, w_scale, dtype)[:tokens]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x8, x_scale, w8, w_scale = ctx.saved_tensors
        x_dtype, w_dtype = ctx.dtypes
        g8, g_scale = _scaled(_padded(grad), torch.float8_e5m2)
        x_grad = _multiply(g8, w8.t().contiguous(), g_scale, w_scale, torch.bfloat16)
        w_grad = _multiply(
            g8.t().contiguous(), x8.t().contiguous(), g_scale, x_scale, torch.bfloat16
        )
        return x_grad[: len(grad)].to(x_dtype), w_grad.to(w_dtype), None


class _MXLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(x, weight)
        with torch.autocast(x.device.type, enabled=False):
            return (_rounded(x, -1) @ _rounded(weight, -1).t()).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            x_grad = _rounded(grad, -1) @ _rounded(weight, 0)
            w_grad = _rounded(grad, 0).t() @ _rounded(x, 0)
        return x_grad.to(x.dtype), w_grad.to(weight.dtype), None


def _rounded(x: Tensor, dim: int) -> Tensor:
    exact = torch.bfloat16 if x.is_cuda else torch.float32
    return quantize_mx(x, "e4m3", "rceil", dim).dequantize(exact)


def _padded(x: Tensor) -> Tensor:
    """Return `x` with rows of zeros up to a multiple of 16, at least one."""
    missing = -len(x) % ALIGNMENT if len(x) else ALIGNMENT
    return F.pad(x, (0, 0, 0, missing)) if missing else x


def _scaled(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return `x / scale` in float8, and the scale that maps its largest magnitude to the limit."""
    limit = torch.finfo(dtype).max
    scale = x.abs().amax().float().clamp(min=1e-12) / limit
    return (x.float() / scale).clamp(-limit, limit).to(dtype), scale


def _multiply(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype) -> Tensor:
    with torch.autocast(a.device.type, enabled=False):  # the CPU's rounds the scales to bfloat16
        return torch._scaled_mm(a, b.t(), a_scale, b_scale, out_dtype=dtype)
