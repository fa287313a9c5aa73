"""Several processes of a test, forked and joined by gloo: seconds cheaper than fresh ones."""

import multiprocessing
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint
import torch.distributed.fsdp

from lmlab.training.distributed import SINGLE_PROCESS, DistributedContext
from ports import free_ports

Body = Callable[[DistributedContext], Any]
LIMIT = 60
"""Seconds after which a process that hangs is killed."""


def run_forked(size: int, body: Body) -> list[tuple[int, Any]]:
    """Return exit code and result of `body` in each of some processes, by rank.

    The result of one that raised is the exception, of one that was killed None.
    """
    context = multiprocessing.get_context("fork")
    (port,) = free_ports(1)
    pipes = [context.Pipe(duplex=False) for _ in range(size)]
    processes = [
        context.Process(target=_child, args=(rank, size, port, pipes[rank][1], body))
        for rank in range(size)
    ]
    for process, (_, sender) in zip(processes, pipes, strict=True):
        process.start()
        sender.close()
    results = []
    for receiver, _ in pipes:
        try:
            results.append(pickle.loads(receiver.recv_bytes()) if receiver.poll(LIMIT) else None)
        except EOFError:
            results.append(None)
    for process in processes:
        process.join(LIMIT)
        process.kill()
        process.join()
    return [(int(p.exitcode or 0), found) for p, found in zip(processes, results, strict=True)]


def results_of(size: int, body: Body) -> list[Any]:
    """Return what `body` returned in each process; raises what it raised in one."""
    return [body(SINGLE_PROCESS)] if size == 1 else in_group(size, body)


def in_group(size: int, body: Body) -> list[Any]:
    """Return the same of forked processes that have a process group, also when it is one."""
    found = run_forked(size, body)
    for code, result in found:
        if isinstance(result, BaseException):
            raise result
        assert code == 0, found
    return [result for _, result in found]


def _child(rank: int, size: int, port: int, sender: Any, body: Body) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=size)
    try:
        control = dist.new_group(backend="gloo")
        result = body(DistributedContext(rank, size, rank, control=control))
        dist.barrier()
    except Exception as error:
        error.add_note(traceback.format_exc())
        result = error
    sender.send_bytes(pickle.dumps(result))  # tensors, too, by value
    sender.close()
    sys.stderr.flush()
    os._exit(1 if isinstance(result, Exception) else 0)
