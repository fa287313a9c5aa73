"""The processes that train one model together, on torch's own engine.

Each has the whole model and computes the gradient on its part of the batch; the gradients are
averaged (DistributedDataParallel; Li et al. 2020). `World.wrap` is the one place that says how the
model is spread over the processes.
"""

import atexit
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lmlab.errors import ConfigError, UserError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
PATIENCE = timedelta(days=1)
"""How long a process waits for one that prepares data or writes."""


@dataclass(frozen=True)
class World:
    """This process among `size`; the first, rank 0, is the only one that writes."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: Any = None
    """The group for what is agreed on the CPU, whatever device the gradients are on."""

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def first(self, compute: Callable[[], Any]) -> Any:
        """Return what the first process computes, in all processes."""
        if self.size == 1:
            return compute()
        box = [compute() if self.leads else None]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier(group=self.control)

    @contextlib.contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the first process do it before the others."""
        if not self.leads:
            self.barrier()
        yield
        if self.leads:
            self.barrier()

    def maximum(self, number: int) -> int:
        """Return the largest of the processes' numbers."""
        return int(self._reduced([number], dist.ReduceOp.MAX)[0])

    def sum(self, *numbers: float) -> list[float]:
        """Return the sums of the processes' numbers, in float64."""
        return self._reduced(list(numbers), dist.ReduceOp.SUM)

    def _reduced(self, numbers: list[float], operation: Any) -> list[float]:
        if self.size == 1:
            return numbers
        values = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(values, operation, group=self.control)
        return values.tolist()

    def part(self, whole: Tensor) -> Tensor:
        """Return this process's sequences of a batch."""
        return whole.chunk(self.size)[self.rank]

    def mean(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Return the means of the processes' values."""
        sums = self.sum(*torch.stack([value.float() for value in values.values()]).tolist())
        return {name: total / self.size for name, total in zip(values, sums, strict=True)}

    def wrap(self, objective: nn.Module, device: torch.device) -> nn.Module:
        """Return the objective whose gradients are averaged over the processes."""
        if self.size == 1:
            return objective
        return nn.parallel.DistributedDataParallel(
            objective,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,  # they are tables, the same in every process
            gradient_as_bucket_view=True,
        )

    def check_batch(self, batch_size: int) -> None:
        """Raise ConfigError unless each process gets as many sequences as the others."""
        if batch_size % self.size:
            raise ConfigError(
                "trainer.batch_size", f"{batch_size} is no multiple of the {self.size} processes"
            )


ALONE = World()


@contextlib.contextmanager
def join_world() -> Iterator[World]:
    """Join the processes that torchrun or a cluster job started; without any, train alone.

    Raises UserError when the environment does not say where the others are, or when they end.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield ALONE
        return
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set; "
            "start with torchrun --nproc-per-node=N train.py"
        )
    for name in VARIABLES[:3]:
        if not os.environ[name].isdecimal():
            raise UserError(f"{name} is {os.environ[name]!r}, which is no number")
    rank, size, local_rank = (int(os.environ[name]) for name in VARIABLES[:3])
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    dist.init_process_group(rank=rank, world_size=size)  # gloo for the CPU, NCCL for CUDA
    broken = False
    try:
        control = dist.new_group(backend="gloo", timeout=PATIENCE)
        yield World(rank, size, local_rank, control)
    except (dist.DistError, RuntimeError) as error:
        if "gloo" not in str(error).lower() and not isinstance(error, dist.DistError):
            raise
        broken = True
        raise UserError(
            f"process {rank} of {size} stops: another one has ended, see its message"
        ) from error
    finally:
        if broken:
            atexit.register(_leave)
        else:
            dist.destroy_process_group()


def _leave() -> None:
    """End with 1, and leave torch's groups as they are.

    Taking one apart waits for its threads, which may wait for the interpreter's lock to drop an
    operation that has failed: now and then neither ended.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
