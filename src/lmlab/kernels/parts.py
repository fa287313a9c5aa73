"""Tensors that are parts of one: joined and split with as few copies as possible."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Part = Float[Tensor, "*batch d"]


def split_parts(x: Part, sizes: Sequence[int]) -> tuple[Part, ...]:
    """Return the parts of `x` in the last dimension.

    Gradients that are the parts of one tensor, as `empty_parts_like` makes them, are not copied.
    """
    parts: tuple[Tensor, ...] = _Split.apply(x, sizes)
    return parts


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
        return x.split(sizes, dim=-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        if are_parts(*grads) and not torch.is_grad_enabled():
            first = grads[0]
            shape = (*first.shape[:-1], first.stride(-2))
            return first.as_strided(shape, first.stride(), first.storage_offset()), None
        return torch.cat(grads, dim=-1), None


def join_rows(dtype: torch.dtype, *matrices: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
    """Return the rows of all matrices in `dtype`, converted while they are copied."""
    whole: Tensor = _Join.apply(dtype, *matrices)
    return whole


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *matrices: Tensor) -> Tensor:
        ctx.sizes, ctx.dtypes = [len(x) for x in matrices], [x.dtype for x in matrices]
        whole = matrices[0].new_empty(sum(ctx.sizes), matrices[0].shape[1], dtype=dtype)
        for part, matrix in zip(whole.split(ctx.sizes), matrices, strict=True):
            part.copy_(matrix)
        return whole

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        parts = zip(grad.split(ctx.sizes), ctx.dtypes, strict=True)
        return None, *(part.to(dtype) for part, dtype in parts)


def are_parts(*parts: Part) -> bool:
    """Return whether the tensors follow one another in each row of one tensor, which ends with the
    last of them."""
    first = parts[0]
    place = first.storage_offset()
    if first.ndim < 2:
        return False
    for part in parts:
        if (
            part.storage_offset() != place
            or part.stride() != first.stride()
            or part.shape[:-1] != first.shape[:-1]
            or part.dtype != first.dtype
            or part.untyped_storage().data_ptr() != first.untyped_storage().data_ptr()
        ):
            return False
        place += part.shape[-1]
    width = place - first.storage_offset()
    return first.stride(-1) == 1 and first.stride(-2) == width


def empty_parts_like(*parts: Part) -> list[Part]:
    """Return empty tensors of the same shapes, parts of one tensor if the given ones are."""
    if not are_parts(*parts):
        return [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in parts]
    sizes = [x.shape[-1] for x in parts]
    first = parts[0]
    return list(first.new_empty(*first.shape[:-1], sum(sizes)).split(sizes, dim=-1))
