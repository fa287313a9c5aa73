"""Initial weights of a sharded model, equal to those of one process."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode

RANDOM = {torch.ops.aten.uniform_.default, torch.ops.aten.normal_.default}


class DrawWhole(TorchDispatchMode):
    """Context in which random numbers for a DTensor are drawn on the CPU for the whole tensor.

    Each process keeps its part, so that the weights depend on torch's seed alone, not on the number
    of processes. One whole tensor at a time is in memory.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation."""
        tensor, *rest = args or (None,)
        if not isinstance(tensor, DTensor):
            return func(*args, **(kwargs or {}))
        if (
            func is torch.ops.aten.any.default
        ):  # truncated distributions draw again while any is out
            return _any(tensor)
        if func not in RANDOM:
            return func(*args, **(kwargs or {}))
        whole: Tensor = func(torch.empty(tensor.shape, dtype=tensor.dtype), *rest, **(kwargs or {}))
        part = distribute_tensor(
            whole.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=None
        )
        tensor.to_local().copy_(part.to_local())
        return tensor


def _any(tensor: DTensor) -> Tensor:
    """Return whether any element in any process is true; torch looks at this process's alone."""
    found = tensor.to_local().any().int()
    for dim in range(tensor.device_mesh.ndim):
        dist.all_reduce(found, dist.ReduceOp.MAX, group=tensor.device_mesh.get_group(dim))
    return found.bool()


def materialize(model: nn.Module, device: torch.device | str) -> None:
    """Allocate a sharded model that is on the meta device, and draw its initial weights.

    `model` has `reset_parameters`, which draws all of them. Other models are left as they are.
    """
    if next(model.parameters()).is_meta:
        model.to_empty(device=device)
        reset: Any = model.reset_parameters
        with DrawWhole():
            reset()
