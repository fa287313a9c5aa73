"""MX formats: blocks of 32 numbers in eight bits with a shared power of two (OCP MX v1.0).

Hardware starts with Blackwell; here they are emulated, in torch, on any device.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Element = Literal["e4m3", "e5m2"]
Rounding = Literal["floor", "rceil"]
BLOCK = 32
"""Numbers that share a scale."""
ELEMENTS: dict[Element, torch.dtype] = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
BIAS, NAN_SCALE = 127, 255
"""Exponent of the scale 1, and the scale of a block that has a NaN."""
_FLOAT32_MANTISSA, _SMALLEST_NORMAL = 23, 2.0**-126


@dataclass(frozen=True)
class MXTensor:
    """A tensor in blocks of 32 along one dimension."""

    payload: Float[Tensor, "..."]
    """Eight-bit numbers in the shape of the original."""
    scales: UInt8[Tensor, "..."]
    """Biased exponents, E8M0; along `dim` one for each block."""
    dim: int

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "..."]:
        """Return the numbers that are represented; NaN where a block had one."""
        unbiased = self.scales.to(torch.float32) - BIAS
        scales = torch.exp2(unbiased).masked_fill(self.scales == NAN_SCALE, torch.nan)
        spread = scales.repeat_interleave(BLOCK, dim=self.dim)
        length = self.payload.shape[self.dim]
        return (self.payload.float() * spread.narrow(self.dim, 0, length)).to(dtype)


def quantize_mx(
    x: Float[Tensor, "..."],
    element: Element = "e4m3",
    rounding: Rounding = "rceil",
    dim: int = -1,
) -> MXTensor:
    """Return `x` in blocks of 32 along `dim`; a last block may be shorter.

    The scale of a block is a power of two made of its largest magnitude m. `floor`: 2^(floor(log2
    m) - e) with e the largest exponent of the element (OCP MX v1.0, section 6.3), so that numbers
    can saturate. `rceil`: 2^ceil(log2(m / M)) with M its largest number, so that none does. Numbers
    are rounded to nearest, ties to even. A block with a NaN is NaN; one with an infinity saturates.
    Raises ValueError for a type that is not float32, bfloat16 or float16.
    """
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"MX blocks are made of float32, bfloat16 or float16, got {x.dtype}")
    dtype, length = ELEMENTS[element], x.shape[dim]
    last = x.movedim(dim, -1).float()
    padded = torch.nn.functional.pad(last, (0, -length % BLOCK))
    blocks = padded.unflatten(-1, (-1, BLOCK))
    largest = blocks.abs().amax(dim=-1, keepdim=True)
    make = _floor if rounding == "floor" else _rceil
    scales, scaled = make(blocks, largest, torch.finfo(dtype).max)
    limit = torch.finfo(dtype).max
    # A cast alone makes NaN of what is too large in torch 2.11.
    payload = scaled.clamp(-limit, limit).to(dtype).flatten(-2)[..., :length]
    return MXTensor(payload.movedim(-1, dim), scales.squeeze(-1).movedim(-1, dim), dim)


def _floor(blocks: Tensor, largest: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    exponent = (largest.view(torch.int32) >> _FLOAT32_MANTISSA & 0xFF) - BIAS
    top = int(torch.tensor(limit).log2().floor())
    biased = (exponent - top).clamp(-BIAS, BIAS + 1) + BIAS
    biased = torch.where(largest.isnan(), NAN_SCALE, biased)
    scale = (biased << _FLOAT32_MANTISSA).view(torch.float32).clamp(min=_SMALLEST_NORMAL)
    return biased.to(torch.uint8), blocks / scale


def _rceil(blocks: Tensor, largest: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    ratio = largest / limit
    biased = ratio.log2().ceil().clamp(-BIAS, BIAS) + BIAS
    biased = torch.where(ratio.isinf(), BIAS + 127, biased)
    # The scale 2^-127 is a subnormal number, which it stands for only in a block of almost zeros.
    factor = torch.where(biased == 0, 1.0, torch.exp2(BIAS - biased))
    scales = torch.where(ratio.isnan(), NAN_SCALE, biased).to(torch.uint8)
    return scales, blocks * torch.where(ratio.isnan(), torch.nan, factor)


def quantize_dequantize(
    x: Float[Tensor, "..."],
    element: Element = "e4m3",
    rounding: Rounding = "rceil",
    dim: int = -1,
) -> Float[Tensor, "..."]:
    """Return `x` rounded to an MX format, in its own type."""
    return quantize_mx(x, element, rounding, dim).dequantize(x.dtype)


@dataclass(frozen=True)
class QuantizationError:
    """How much a tensor changes when it is rounded to an MX format."""

    relative: float
    """Norm of the difference divided by the norm of the tensor."""
    largest: float
    """Largest absolute difference."""
    saturated: float
    """Share of elements at the largest number of the element type."""
    underflowed: float
    """Share of elements that became zero and were none."""


def quantization_error(
    x: Float[Tensor, "..."],
    element: Element = "e4m3",
    rounding: Rounding = "rceil",
    dim: int = -1,
) -> QuantizationError:
    """Return what rounding `x` to an MX format changes."""
    rounded = quantize_mx(x, element, rounding, dim)
    difference = rounded.dequantize() - x.float()
    payload = rounded.payload.float()
    at_limit = payload.abs() == torch.finfo(ELEMENTS[element]).max
    return QuantizationError(
        relative=(difference.norm() / x.float().norm().clamp(min=1e-30)).item(),
        largest=difference.abs().max().item(),
        saturated=at_limit.float().mean().item(),
        underflowed=((payload == 0) & (x != 0)).float().mean().item(),
    )


def quantization_report(
    tensors: Mapping[str, Float[Tensor, "..."]],
    element: Element = "e4m3",
    rounding: Rounding = "rceil",
) -> str:
    """Return a markdown table of the errors of tensors, in blocks along their last dimension."""
    lines = [
        "| tensor | shape | relative error | largest error | saturated | underflowed |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, tensor in tensors.items():
        error = quantization_error(tensor, element, rounding)
        shape = " x ".join(map(str, tensor.shape))
        lines.append(
            f"| {name} | {shape} | {error.relative:.4f} | {error.largest:.3g} | "
            f"{error.saturated:.2%} | {error.underflowed:.2%} |"
        )
    return "\n".join(lines)
