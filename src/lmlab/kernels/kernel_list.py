"""The variants of each Triton kernel that are compiled ahead. Importing it needs triton."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from lmlab.kernels.flash_triton import attention_tiles
from lmlab.kernels.triton_kernels import cross_entropy, rms_norm, weighted_sum
from lmlab.kernels.triton_kernels.attention_backward import (
    delta_kernel,
    key_value_grad_kernel,
    query_grad_kernel,
)
from lmlab.kernels.triton_kernels.attention_forward import attention_forward_kernel
from lmlab.kernels.triton_kernels.matmul import LAUNCH, NEIGHBOURS, TILES, matmul_kernel

NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


@dataclass(frozen=True)
class Compilation:
    """One variant of a kernel: types of its arguments, constants and options."""

    name: str
    kernel: Any
    types: dict[str, str]
    """Triton's type of each argument that is no constant."""
    constants: dict[str, Any]
    launch: dict[str, int]
    aligned: tuple[str, ...] = ()
    """Integers that are multiples of 16."""
    uses_tensor_cores: bool = False


def compilations(target: int) -> Iterator[Compilation]:
    """Yield the variants for a compute capability without its dot (80, 90, 100)."""
    for dtype, width, options in (
        (torch.bfloat16, 64, {}),
        (torch.bfloat16, 128, {}),
        (torch.bfloat16, 128, {"WINDOW": 1024, "SOFTCAP": 50.0}),
        (torch.float32, 64, {}),
        (torch.float32, 128, {"PRECISION": "tf32"}),
    ):
        yield from _attention(dtype, width, options, target)
    yield from _products()
    yield from _rows()


def _attention(
    dtype: torch.dtype, width: int, options: dict[str, Any], target: int
) -> Iterator[Compilation]:
    element, tiles = NAMES[dtype], attention_tiles(width, dtype, target, "SOFTCAP" in options)
    block = 1 << (width - 1).bit_length()
    constants: dict[str, Any] = {
        "D": width,
        "BLOCK_D": block,
        "CAUSAL": True,
        "WINDOW": 0,
        "SOFTCAP": 0.0,
    }
    constants |= {"PRECISION": "ieee"} | options
    suffix = f"{element} d={width}" + "".join(f" {k.lower()}={v}" for k, v in options.items())
    kernels = (
        ("attention forward", attention_forward_kernel, tiles.forward),
        ("attention dK dV", key_value_grad_kernel, tiles.key_value_grad),
        ("attention dQ", query_grad_kernel, tiles.query_grad),
    )
    for name, kernel, chosen in kernels:
        types = _types(kernel, element, scale="fp32", lse="*fp32", delta="*fp32")
        strides = tuple(n for n in types if n.endswith(("_batch", "_head", "_row")))
        yield Compilation(
            f"{name}, {suffix}",
            kernel,
            types,
            constants | chosen.blocks,
            chosen.launch,
            aligned=strides,
            uses_tensor_cores=constants["PRECISION"] == "tf32" or dtype != torch.float32,
        )
    if not options:
        blocks = {"D": width, "BLOCK_D": block, "BLOCK_M": 64}
        types = _types(delta_kernel, element, delta="*fp32")
        yield Compilation(f"attention D, {suffix}", delta_kernel, types, blocks, {})


def _products() -> Iterator[Compilation]:
    constants: dict[str, Any] = {
        "BLOCK_M": TILES.rows,
        "BLOCK_N": TILES.columns,
        "BLOCK_K": TILES.depth,
    }
    constants |= {"NEIGHBOURS": NEIGHBOURS, "PRECISION": "ieee"}
    types = _types(matmul_kernel, "bf16")
    rows = ("a_row", "b_row", "out_row")
    yield Compilation("matrix product, bf16", matmul_kernel, types, constants, LAUNCH, rows, True)


def _rows() -> Iterator[Compilation]:
    """Yield the kernels that work on rows, without matrix products."""
    sums: dict[str, Any] = {"BLOCK_ROWS": weighted_sum.ROWS, "BLOCK_WIDTH": weighted_sum.WIDTH}
    logits, eight = {"BLOCK": cross_entropy.BLOCK}, {"num_warps": 8}
    kernels: list[tuple[Any, str, dict[str, Any], dict[str, int]]] = [
        (weighted_sum.weighted_sum_kernel, "weighted sum", sums, {}),
        (weighted_sum.weighted_sum_grad_kernel, "weighted sum grad", sums, {}),
        (cross_entropy.cross_entropy_kernel, "cross-entropy", logits, eight),
        (cross_entropy.cross_entropy_grad_kernel, "cross-entropy grad", logits, eight),
    ]
    for width in (512, 4096):
        rows, block = rms_norm.row_tile(width)
        tile, warps = {"ROWS": rows, "BLOCK": block}, {"num_warps": rms_norm.row_warps(block)}
        kernels.append((rms_norm.rms_norm_kernel, f"RMSNorm d={width}", tile, warps))
        kernels.append((rms_norm.rms_norm_grad_kernel, f"RMSNorm grad d={width}", tile, warps))
    floats = dict.fromkeys(("loss", "lse", "mean", "inverse", "partial"), "*fp32")
    floats |= dict.fromkeys(("loss_grad", "lse_grad", "mean_grad"), "*fp32")
    for kernel, name, constants, launch in kernels:
        types = _types(kernel, "bf16", targets="*i64", eps="fp32", **floats)
        yield Compilation(f"{name}, bf16", kernel, types, constants, launch)


SIZES = {"heads", "kv_heads", "group", "queries", "keys", "rows", "columns", "tiles"}
SIZES |= {"m", "n", "depth", "vocab", "row_stride"}


def _types(kernel: Any, element: str, **other: str) -> dict[str, str]:
    """Return the types of a kernel's arguments that are no constants, by name.

    Sizes and strides are integers, those in `other` have their type, and the rest are pointers.
    """
    return {
        name: other.get(name)
        or ("i32" if name in SIZES or name.endswith(("_batch", "_head", "_row")) else f"*{element}")
        for name in kernel.arg_names
        if not name.isupper()
    }
