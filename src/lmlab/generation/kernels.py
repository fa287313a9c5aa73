"""Linear maps for inference: a kernel for each dtype and device."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lmlab.kernels.onednn import has_onednn, onednn_linear
from lmlab.model.products import upcasts

Dtype = Literal["fp32", "bf16", "int8"]
Weight = Float[Tensor, "d_out d_in"]


class Packed(nn.Module, ABC):
    """A linear map for inference: `y = W x + b`, by a kernel made for its weight."""

    def __init__(self, weight: Weight, bias: Tensor | None) -> None:
        super().__init__()
        self.bias = bias
        self.pack(weight)

    @abstractmethod
    def pack(self, weight: Weight) -> None:
        """Store the weight."""

    @abstractmethod
    def product(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """Return `W x`."""

    def forward(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """Map the last dimension."""
        y = self.product(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class OneDNN(Packed):
    """float32, in the blocks that oneDNN reads; a row's result does not depend on other rows."""

    dtype = torch.float32
    ROWS = 16
    """Rows that the blocks are chosen for; they are fast for one row and for hundreds too."""

    def pack(self, weight: Weight) -> None:
        """Store the weight in blocks."""
        weight = weight.to(self.dtype).contiguous()
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, self.ROWS)

    def product(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """Return `W x`."""
        return onednn_linear(x, self.weight)


class OneDNNBFloat16(OneDNN):
    """bfloat16 by the processor's own arithmetic, in the blocks that oneDNN reads."""

    dtype = torch.bfloat16


class Transposed(Packed):
    """float32, stored (d_in, d_out): a product with one row reads it in order."""

    def pack(self, weight: Weight) -> None:
        """Store the transpose."""
        self.weight = weight.float().mT.contiguous()

    def product(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """Return `W x`."""
        return x @ self.weight


class BFloat16(Packed):
    """bfloat16, by the device's own arithmetic."""

    def pack(self, weight: Weight) -> None:
        """Store the rounded weight."""
        self.weight = weight.bfloat16().contiguous()

    def product(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """Return `W x`."""
        return F.linear(x, self.weight)


class UpcastBFloat16(Packed):
    """bfloat16 values held as float32, for processors without bfloat16 arithmetic."""

    def pack(self, weight: Weight) -> None:
        """Store the rounded weight as float32."""
        self.exact = kernel("fp32", weight.device)(weight.bfloat16().float(), None)

    def product(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """Return `W x`, rounded to bfloat16."""
        y: Tensor = self.exact(x.float())
        return y.bfloat16()


class Int8(Packed):
    """int8 with one scale for each output channel; inputs and outputs are bfloat16."""

    MULTIPLE = 64
    """torch's kernel reads whole vectors, even past the end of a row: both are padded."""

    def pack(self, weight: Weight) -> None:
        """Round to the nearest of 255 levels between minus and plus the row's largest value."""
        self.d_out, self.d_in = weight.shape
        scale = (weight.float().abs().amax(dim=1) / 127).bfloat16()
        steps = scale.float().clamp(min=torch.finfo(torch.float32).tiny)
        levels = (weight.float() / steps[:, None]).round().clamp(-127, 127).to(torch.int8)
        # torch has the kernel for the CPU only; elsewhere the product is of bfloat16.
        self.on_cpu = weight.device.type == "cpu"
        self.more_in, more_out = (
            (-size % self.MULTIPLE if self.on_cpu else 0) for size in (self.d_in, self.d_out)
        )
        self.weight = F.pad(levels, (0, self.more_in, 0, more_out))
        self.scale = F.pad(scale, (0, more_out))

    def product(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """Return `W x`."""
        if not self.on_cpu:
            return F.linear(x, self.weight.to(x.dtype)) * self.scale
        rows = x.reshape(-1, self.d_in)
        if self.more_in:
            rows = F.pad(rows, (0, self.more_in))
        y = torch.ops.aten._weight_int8pack_mm(rows, self.weight, self.scale)
        if y.shape[-1] != self.d_out:
            y = y[:, : self.d_out]
        return y.reshape(*x.shape[:-1], self.d_out)


def kernel(dtype: Dtype, device: torch.device) -> type[Packed]:
    """Return the linear map that is fastest for a dtype on a device."""
    if dtype == "int8":
        return Int8
    if dtype == "fp32":
        return OneDNN if has_onednn(device) else Transposed
    if upcasts(device, torch.bfloat16):
        return UpcastBFloat16
    return OneDNNBFloat16 if has_onednn(device) else BFloat16
