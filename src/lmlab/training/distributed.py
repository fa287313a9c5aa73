"""The processes that train one model together: how they meet, and what they tell each other.

`lmlab.parallel` decides how they share the model.
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

from lmlab.errors import ConfigError, UserError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
LAST_PORT = 2**16 - 1
BARRIER_TIMEOUT = timedelta(days=1)
"""How long a process waits at a barrier, for instance while rank 0 prepares data."""


@dataclass(frozen=True)
class DistributedContext:
    """This process among `size`; rank 0 is the main process, the only one that writes."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    model_parallel: int = 1
    """Neighbouring processes that read the same sequences, each with a part of every layer."""
    control: Any = None
    """Process group for objects and numbers on the CPU, whatever device the gradients are on."""

    @property
    def is_main_process(self) -> bool:
        """Whether this is rank 0, the process that writes."""
        return self.rank == 0

    @property
    def data_rank(self) -> int:
        """Which part of the batch this process gets."""
        return self.rank // self.model_parallel

    @property
    def data_size(self) -> int:
        """Parts into which the batch is divided."""
        return self.size // self.model_parallel

    def from_main(self, compute: Callable[[], Any]) -> Any:
        """Return what the main process computes, in all processes."""
        if self.size == 1:
            return compute()
        box = [compute() if self.is_main_process else None]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def new_control_group(self) -> Any:
        """Return another process group on the CPU, for a thread; None for one process."""
        if self.size == 1:
            return None
        return dist.new_group(backend="gloo", timeout=BARRIER_TIMEOUT)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier(group=self.control)

    @contextlib.contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Let the main process enter the block before the others."""
        if not self.is_main_process:
            self.barrier()
        yield
        if self.is_main_process:
            self.barrier()

    def maximum(self, number: int) -> int:
        """Return the largest of the processes' numbers."""
        return self.maxima(number)[0]

    def maxima(self, *numbers: int) -> list[int]:
        """Return for each number the largest of the processes'."""
        return [int(number) for number in self._reduced(list(numbers), dist.ReduceOp.MAX)]

    def sum(self, *numbers: float) -> list[float]:
        """Return the sums of numbers over the parts of the batch, in float64."""
        sums = self._reduced(list(numbers), dist.ReduceOp.SUM)
        return [number / self.model_parallel for number in sums]

    def _reduced(self, numbers: list[float], operation: Any) -> list[float]:
        if self.size == 1:
            return numbers
        values = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(values, operation, group=self.control)
        return values.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def check_batch(self, batch_size: int) -> None:
        """Raise ConfigError unless each process gets as many sequences as the others."""
        if batch_size % self.data_size:
            parts = f"{self.size} processes"
            if self.model_parallel > 1:
                parts = f"{self.data_size} groups of {self.model_parallel} processes"
            raise ConfigError(
                "trainer.batch_size",
                f"{batch_size} is not divisible by the {parts}; use a multiple of "
                f"{self.data_size}, or start fewer processes",
            )


SINGLE_PROCESS = DistributedContext()


@contextlib.contextmanager
def init_distributed() -> Iterator[DistributedContext]:
    """Join the processes that torchrun or a cluster job started; without them, train in one.

    Raises UserError when the environment lacks what the processes need to meet, or when another
    process exits.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        try:
            yield SINGLE_PROCESS
        except (RuntimeError, MemoryError) as error:
            raise _explained(error, "") from error
        return
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set; "
            "start with torchrun --nproc-per-node=N train.py"
        )
    for name in (*VARIABLES[:3], "MASTER_PORT"):
        if not (os.environ[name].isascii() and os.environ[name].isdecimal()):
            raise UserError(f"{name} is {os.environ[name]!r}, which is not an integer")
    rank, size, local_rank, port = (
        int(os.environ[name]) for name in (*VARIABLES[:3], "MASTER_PORT")
    )
    if rank >= size:
        raise UserError(f"RANK is {rank}, and must be less than WORLD_SIZE, which is {size}")
    if port > LAST_PORT:
        raise UserError(f"MASTER_PORT is {port}, which is more than {LAST_PORT}")
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    try:
        dist.init_process_group(rank=rank, world_size=size)  # gloo for the CPU, NCCL for CUDA
    except dist.DistError as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = str(error).splitlines()[0]
        raise UserError(
            f"process {rank} of {size} cannot meet the others at {where}: {reason}"
        ) from error
    broken = False
    try:
        control = dist.new_group(backend="gloo", timeout=BARRIER_TIMEOUT)
        yield DistributedContext(rank, size, local_rank, control=control)
    except (RuntimeError, MemoryError) as error:
        explained = _explained(error, f"process {rank} of {size}")
        broken = explained is not error
        raise explained from error
    finally:
        if broken:
            atexit.register(_exit)
        else:
            dist.destroy_process_group()


def _explained(error: Exception, process: str) -> Exception:
    """Return a UserError for a lack of memory and for a process that is gone, else the error."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        reason = (text.splitlines() or ["no more to allocate"])[0]
        return UserError(
            f"{process or 'the run'} is out of memory ({reason}); lower trainer.micro_batch_size, "
            "set trainer.checkpoint_activations=true, or divide the model with parallel=fsdp"
        )
    if process and (isinstance(error, dist.DistError) or "gloo" in text.lower()):
        return UserError(f"{process} stops: another process exited, see its message")
    return error


def _exit() -> None:
    """Exit with 1 without destroying torch's process groups.

    Destroying one waits for its threads, which may wait for the interpreter's lock to drop a failed
    operation: a deadlock that was seen now and then.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
