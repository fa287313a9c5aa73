"""Several processes that meet over gloo: forked functions, and the real command line."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forked import in_group
from ports import free_ports
from tests_support import ROOT

TRAIN = [sys.executable, str(ROOT / "train.py")]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def in_processes(size: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return what `work(context, *arguments)` returns in each of `size` processes, by rank."""
    return in_group(size, lambda context: work(context, *arguments))


def meeting_place(size: int) -> dict[str, str]:
    """Return what `size` processes on this machine need to meet, beside their ranks."""
    (port,) = free_ports(1)
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
