"""Functions run by several forked processes that meet over gloo."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lmlab.training.distributed import DistributedContext


def in_processes(size: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return what `work(context, *arguments)` returns in each of `size` processes, by rank."""
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(  # type: ignore[no-untyped-call]
            _begin, (size, folder, work, arguments), size, start_method="fork"
        )
        return [torch.load(Path(folder, f"{rank}.pt"), weights_only=False) for rank in range(size)]


def _begin(
    rank: int, size: int, folder: str, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size
    )
    result = work(DistributedContext(rank, size, rank, control=dist.group.WORLD), *arguments)
    torch.save(result, Path(folder, f"{rank}.pt"))
    dist.barrier()
    dist.destroy_process_group()
