"""Parameters and gradients of which a process holds a part: DTensors."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def local(tensor: Tensor) -> Tensor:
    """Return the part of a DTensor that this process holds, sharing memory; others as they are."""
    # Not isinstance: importing DTensor takes half a second, which one process need not pay.
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def gathered(part: Tensor, like: Tensor) -> Tensor:
    """Return the whole of a tensor that is divided as `like`; all processes must call it."""
    if not hasattr(like, "to_local"):
        return part
    from torch.distributed.tensor import DTensor

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    whole = DTensor.from_local(
        part, mesh, placements, run_check=False, shape=like.shape, stride=like.stride()
    )
    return whole.full_tensor()


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """Return this process's part of a whole tensor, divided as `like`; without communication."""
    if not hasattr(like, "to_local"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    return distribute_tensor(whole, mesh, placements, src_data_rank=None).to_local()


def global_norm(tensors: Iterable[Tensor]) -> Float[Tensor, ""]:
    """Return the L2 norm of all elements together, DTensors and tensors mixed.

    With DTensors all processes must call it. Each element counts once, wherever it is copied to.
    """
    groups: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(_spread(tensor), []).append(local(tensor))
    norms = []
    for (mesh, dims), parts in groups.items():
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(parts)))
        if dims:
            norm = norm.square()
            for dim in dims:
                dist.all_reduce(norm, group=mesh.get_group(dim))
            norm = norm.sqrt()
        norms.append(norm)
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


def _spread(tensor: Tensor) -> tuple[Any, tuple[int, ...]]:
    """Return the mesh of a DTensor, and its dimensions along which the elements are divided."""
    placements = getattr(tensor, "placements", None)
    if placements is None:
        return None, ()
    dims = tuple(i for i, placement in enumerate(placements) if not placement.is_replicate())
    return tensor.device_mesh, dims  # type: ignore[attr-defined]
