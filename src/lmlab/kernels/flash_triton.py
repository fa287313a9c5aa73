"""FlashAttention-2 in Triton: tile sizes, launches, and the operator. Importing it needs triton."""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from lmlab.kernels.attention_operator import (
    Heads,
    LogSumExp,
    attention_function,
    attention_operator,
    new_lse,
)
from lmlab.kernels.support import check_head_width, matmul_precision
from lmlab.kernels.triton_kernels.attention_backward import (
    delta_kernel,
    key_value_grad_kernel,
    query_grad_kernel,
)
from lmlab.kernels.triton_kernels.attention_forward import attention_forward_kernel

_MOST_SEQUENCES = 65535
"""Blocks that CUDA allows in the second dimension of a grid."""


@dataclass(frozen=True)
class Tiles:
    """Sizes of tiles and how a kernel is launched."""

    queries: int
    keys: int
    warps: int
    stages: int

    @property
    def blocks(self) -> dict[str, int]:
        """The constants of the kernels."""
        return {"BLOCK_M": self.queries, "BLOCK_N": self.keys}

    @property
    def launch(self) -> dict[str, int]:
        """The compiler's options."""
        return {"num_warps": self.warps, "num_stages": self.stages}


@dataclass(frozen=True)
class AttentionTiles:
    """Tiles of the three kernels of tiled attention."""

    forward: Tiles
    key_value_grad: Tiles
    query_grad: Tiles


def attention_tiles(
    width: int, dtype: torch.dtype, capability: int, softcap: bool
) -> AttentionTiles:
    """Return the tiles for heads of `width` on a compute capability without its dot (80, 90, 100).

    They are the largest of those tried that spill no registers there; none was timed.
    """
    wide = width > 64
    if dtype == torch.float32 and wide:
        tiles = Tiles(16, 16, 4, 1)
        return AttentionTiles(tiles, tiles, tiles)
    if dtype == torch.float32:
        return AttentionTiles(Tiles(16, 32, 4, 1), Tiles(32, 16, 4, 1), Tiles(16, 16, 4, 1))
    if not wide:
        return AttentionTiles(Tiles(128, 64, 8, 2), Tiles(32, 64, 8, 2), Tiles(128, 64, 8, 2))
    tensor_memory = 100 <= capability < 120  # which keeps sums outside the registers
    key_value_grad = Tiles(64, 64, 8, 1) if tensor_memory else Tiles(16, 64, 8, 2)
    forward = Tiles(128, 32 if softcap else 64, 8, 2)
    return AttentionTiles(forward, key_value_grad, Tiles(64, 64, 8, 2))


def triton_forward(
    q: Heads,
    k: Heads,
    v: Heads,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
) -> tuple[Heads, LogSumExp]:
    """Return what `tiled_forward` does, computed in Triton.

    Raises ValueError for a head width, a type or a size that the kernel does not take.
    """
    check_head_width(q.shape[-1], q.dtype)
    _check_sizes(q, k, v)
    out, lse = torch.empty_like(q), new_lse(q)
    tiles = _tiles(q, softcap).forward
    shape = _Shape.of(q, k)
    q4, k4, v4, o4 = (_four(x) for x in (q, k, v, out))
    attention_forward_kernel[shape.grid(q, tiles.queries)](
        q4, k4, v4, o4, lse,
        *_strides(q4, k4, v4, o4),
        shape.heads, shape.group, q.shape[-2], k.shape[-2], q.shape[-1] ** -0.5,
        **_constants(q, causal, window, softcap), **tiles.blocks, **tiles.launch,
    )  # fmt: skip
    return _result(out, o4), lse


def triton_backward(
    grad: Heads,
    q: Heads,
    k: Heads,
    v: Heads,
    out: Heads,
    lse: LogSumExp,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
) -> tuple[Heads, Heads, Heads]:
    """Return what `tiled_backward` does, computed in Triton."""
    tiles, shape = _tiles(q, softcap), _Shape.of(q, k)
    q_grad, k_grad, v_grad = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    q4, k4, v4, g4, o4, dq, dk, dv = (
        _four(x) for x in (q, k, v, grad, out, q_grad, k_grad, v_grad)
    )
    delta = torch.empty_like(lse)
    constants = _constants(q, causal, window, softcap)
    width = {name: constants[name] for name in ("D", "BLOCK_D")}
    sizes = (shape.group, q.shape[-2], k.shape[-2], q.shape[-1] ** -0.5)
    delta_kernel[shape.grid(q, 64)](
        o4, g4, delta, *_strides(o4, g4), shape.heads, q.shape[-2], **width, BLOCK_M=64
    )
    chosen = tiles.key_value_grad
    key_value_grad_kernel[shape.grid(k, chosen.keys)](
        q4, k4, v4, g4, lse, delta, dk, dv,
        *_strides(q4, k4, v4, g4, dk, dv), shape.kv_heads, *sizes,
        **constants, **chosen.blocks, **chosen.launch,
    )  # fmt: skip
    chosen = tiles.query_grad
    query_grad_kernel[shape.grid(q, chosen.queries)](
        q4, k4, v4, g4, lse, delta, dq,
        *_strides(q4, k4, v4, g4, dq), shape.heads, *sizes,
        **constants, **chosen.blocks, **chosen.launch,
    )  # fmt: skip
    return _result(q_grad, dq), _result(k_grad, dk), _result(v_grad, dv)


triton_attention, triton_attention_backward = attention_operator(
    "triton_attention", triton_forward, triton_backward
)


TritonAttention = attention_function("TritonAttention", triton_attention, triton_attention_backward)


@dataclass(frozen=True)
class _Shape:
    """Heads of queries and of keys, and how many of the first share one of the second."""

    heads: int
    kv_heads: int

    @classmethod
    def of(cls, q: Tensor, k: Tensor) -> "_Shape":
        return cls(*(x.shape[-3] if x.ndim > 2 else 1 for x in (q, k)))

    @property
    def group(self) -> int:
        return self.heads // self.kv_heads

    def grid(self, x: Tensor, tile: int) -> tuple[int, int]:
        return triton.cdiv(x.shape[-2], tile), x.shape[:-2].numel()


def _check_sizes(*tensors: Tensor) -> None:
    for x in tensors:
        if x.shape[:-2].numel() > _MOST_SEQUENCES or x.shape[-2] * x.stride(-2) >= 2**31:
            raise ValueError(
                f"the Triton attention takes {_MOST_SEQUENCES:,} heads of all sequences and 2^31 "
                f"elements between the ends of a sequence, got a shape of {tuple(x.shape)}"
            )


def _four(x: Tensor) -> Tensor:
    """View as (batch, heads, time, d) with adjacent elements of a head, or copy."""
    x = x[None, None] if x.ndim == 2 else x[None] if x.ndim == 3 else x.flatten(0, -4)
    return x if x.stride(-1) == 1 else x.contiguous()


def _result(asked: Tensor, written: Tensor) -> Tensor:
    """Return `asked` with what was written: the same memory unless its layout needed a copy."""
    if asked.data_ptr() != written.data_ptr():
        asked.copy_(written.view(asked.shape))
    return asked


def _tiles(q: Tensor, softcap: float | None) -> AttentionTiles:
    major, minor = torch.cuda.get_device_capability(q.device) if q.is_cuda else (9, 0)
    return attention_tiles(q.shape[-1], q.dtype, 10 * major + minor, softcap is not None)


def _strides(*tensors: Tensor) -> tuple[int, ...]:
    return tuple(stride for x in tensors for stride in x.stride()[:3])


def _constants(
    q: Tensor, causal: bool, window: int | None, softcap: float | None
) -> dict[str, Any]:
    return {
        "D": q.shape[-1],
        "BLOCK_D": max(16, triton.next_power_of_2(q.shape[-1])),
        "CAUSAL": causal,
        "WINDOW": window or 0,
        "SOFTCAP": softcap or 0.0,
        "PRECISION": matmul_precision(q.dtype),
    }
