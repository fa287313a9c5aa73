"""Several processes of a test, forked and joined by gloo: seconds cheaper than fresh ones."""

import multiprocessing
import os
import pickle
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint
import torch.distributed.fsdp  # noqa: F401  imported once, not in each process

from lmlab.training.distributed import SINGLE_PROCESS, DistributedContext

Body = Callable[[DistributedContext], Any]


def run_forked(size: int, body: Body) -> list[tuple[int, Any]]:
    """Return exit code and result of `body` in each of some processes, by rank.

    The result of one that raised is the exception, of one that was killed None.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(size)]
        processes = [
            context.Process(target=_child, args=(rank, size, Path(folder), pipes[rank][1], body))
            for rank in range(size)
        ]
        for process, (_, sender) in zip(processes, pipes, strict=True):
            process.start()
            sender.close()
        results = []
        for receiver, _ in pipes:
            try:
                results.append(pickle.loads(receiver.recv_bytes()))
            except EOFError:
                results.append(None)
        for process in processes:
            process.join(60)
    return [(int(p.exitcode or 0), found) for p, found in zip(processes, results, strict=True)]


def results_of(size: int, body: Body) -> list[Any]:
    """Return what `body` returned in each process; raises what it raised in one."""
    if size == 1:
        return [body(SINGLE_PROCESS)]
    found = run_forked(size, body)
    for code, result in found:
        if isinstance(result, BaseException):
            raise result
        assert code == 0, found
    return [result for _, result in found]


def _child(rank: int, size: int, folder: Path, sender: Any, body: Body) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    try:
        control = dist.new_group(backend="gloo")
        result = body(DistributedContext(rank, size, rank, control))
        dist.barrier()
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        result = error
    sender.send_bytes(pickle.dumps(result))  # tensors, too, by value
    sender.close()
    sys.stderr.flush()
    os._exit(1 if isinstance(result, Exception) else 0)
