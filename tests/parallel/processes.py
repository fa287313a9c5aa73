"""Several processes that meet over gloo: forked functions, and the real command line."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lmlab.training.distributed import DistributedContext
from tests_support import ROOT

TRAIN = [sys.executable, str(ROOT / "train.py")]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


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


def meeting_place(size: int) -> dict[str, str]:
    """Return what `size` processes on this machine need to meet, beside their ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def start(folder: Path, size: int, *arguments: str) -> list[subprocess.Popen[str]]:
    """Start the processes as the tasks of a cluster job are started: by their environment."""
    place = meeting_place(size)
    return [
        subprocess.Popen(
            [*TRAIN, *arguments],
            cwd=folder,
            env=ONE_THREAD | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    outputs = [process.communicate(timeout=300) for process in processes]
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]
