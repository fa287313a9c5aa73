"""Attention, losses, norms and low precision as kernels; Triton is imported where it is used."""

from typing import TYPE_CHECKING

from lmlab.lazy import lazy_exports

if TYPE_CHECKING:
    from lmlab.kernels.flash_torch import TiledAttention, tiled_attention
    from lmlab.kernels.flash_triton import TritonAttention, triton_attention
    from lmlab.kernels.low_precision import fp8_product, mxfp8_product
    from lmlab.kernels.matmul_tiles import (
        MatmulTiles,
        matmul_intensity,
        matmul_traffic,
        tiled_matmul,
    )
    from lmlab.kernels.mx import (
        MXTensor,
        quantization_error,
        quantization_report,
        quantize_dequantize,
        quantize_mx,
    )
    from lmlab.kernels.triton_kernels.cross_entropy import triton_cross_entropy
    from lmlab.kernels.triton_kernels.matmul import triton_matmul
    from lmlab.kernels.triton_kernels.rms_norm import triton_rms_norm
    from lmlab.kernels.triton_kernels.weighted_sum import WeightedSum

__all__ = [
    "MXTensor",
    "MatmulTiles",
    "TiledAttention",
    "TritonAttention",
    "WeightedSum",
    "fp8_product",
    "matmul_intensity",
    "matmul_traffic",
    "mxfp8_product",
    "quantization_error",
    "quantization_report",
    "quantize_dequantize",
    "quantize_mx",
    "tiled_attention",
    "tiled_matmul",
    "triton_attention",
    "triton_cross_entropy",
    "triton_matmul",
    "triton_rms_norm",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "low_precision": ("fp8_product", "mxfp8_product"),
        "mx": (
            "MXTensor",
            "quantization_error",
            "quantization_report",
            "quantize_dequantize",
            "quantize_mx",
        ),
        "flash_torch": ("TiledAttention", "tiled_attention"),
        "matmul_tiles": ("MatmulTiles", "matmul_intensity", "matmul_traffic", "tiled_matmul"),
        "flash_triton": ("TritonAttention", "triton_attention"),
        "triton_kernels.cross_entropy": ("triton_cross_entropy",),
        "triton_kernels.matmul": ("triton_matmul",),
        "triton_kernels.rms_norm": ("triton_rms_norm",),
        "triton_kernels.weighted_sum": ("WeightedSum",),
    },
)
