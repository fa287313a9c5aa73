"""Matrix products: float32 by oneDNN, and bfloat16 on x86 processors without its instructions.

torch multiplies float32 by MKL, which leaves half of the speed of AMD's newer processors unused.
Its kernels of bfloat16 convert each number where the processor lacks them, five times slower than
float32. The product of two bfloat16 numbers is exact in float32, the type of the sums. So these
functions multiply in float32 and round the result, which differs by the order of the sums only.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd
from torch.nn import functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode

from lmlab.kernels.low_precision import PRODUCTS
from lmlab.kernels.once import once_differentiable
from lmlab.kernels.onednn import has_onednn, onednn_linear, onednn_product
from lmlab.processor import FAST_ONEDNN, SLOW_BFLOAT16


def upcasts(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether products of `dtype` on the device are computed in float32 and rounded."""
    return SLOW_BFLOAT16 and device.type == "cpu" and dtype == torch.bfloat16


def multiplies_by_torch(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether `linear` is torch's own product for training in `dtype` on the device."""
    if dtype == torch.float32:
        return not (FAST_ONEDNN and has_onednn(device))
    return not upcasts(device, dtype)


def linear(
    x: Float[Tensor, "... d_in"], weight: Float[Tensor, "d_out d_in"]
) -> Float[Tensor, "... d_out"]:
    """Return `x W^T` in the precision of autocast."""
    if _upcasts_now(x):
        y = _UpcastLinear.apply(x, weight)
        assert isinstance(y, Tensor)
        return y
    if _for_onednn(x, weight):
        if FAST_ONEDNN and (torch.is_grad_enabled() or torch.compiler.is_compiling()):
            return onednn_product(x.reshape(-1, x.shape[-1]), weight).view(*x.shape[:-1], -1)
        return onednn_linear(x, weight)
    return F.linear(x, weight)  # autocast keeps its copy of `weight`, but not one of `weight.mT`


def _for_onednn(x: Tensor, weight: Tensor) -> bool:
    """Return whether oneDNN multiplies: wherever it is faster, and always without gradients.

    Counters of FLOPs know torch's own products only, sharded tensors too.
    """
    if torch.compiler.is_compiling():
        runs = FAST_ONEDNN
    else:
        counted = _get_current_dispatch_mode() is not None
        runs = (FAST_ONEDNN or not torch.is_grad_enabled()) and not counted
    return (
        runs
        and has_onednn(x.device)
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and all(type(each) in (Tensor, nn.Parameter) for each in (x, weight))
    )


Product = Callable[[Tensor, Tensor], Tensor]
"""Returns `x W^T` of x (..., d_in) and W (d_out, d_in)."""


def low_precision(precision: str) -> Product:
    """Return `linear` in eight bits under autocast; without autocast it is `linear`."""
    return partial(_low_precision, precision)


def _low_precision(precision: str, x: Tensor, weight: Tensor) -> Tensor:
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return linear(x, weight)
    return PRODUCTS[precision](x, weight, torch.get_autocast_dtype(kind))


def upcast(function: Callable[..., Tensor], *args: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return `function(*args)` in the precision of autocast."""
    if not _upcasts_now(args[0]):
        return function(*args)
    with torch.autocast("cpu", enabled=False):
        return function(*(x.bfloat16().float() for x in args)).bfloat16()


def _upcasts_now(x: Tensor) -> bool:
    return torch.is_autocast_enabled("cpu") and upcasts(x.device, torch.get_autocast_dtype("cpu"))


class _UpcastLinear(torch.autograd.Function):
    """Saves its arguments as bfloat16; the backward pass multiplies in float32 too.

    The gradient of the weight is float32 and not rounded.
    """

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)  # type: ignore[untyped-decorator]
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return (x.float() @ weight.float().mT).bfloat16()

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad = grad.float()
        weight_grad = grad.reshape(-1, grad.shape[-1]).mT @ x.float().reshape(-1, x.shape[-1])
        return (grad @ weight.float()).bfloat16(), weight_grad
