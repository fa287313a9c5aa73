"""Device, precision, allocator and seeds."""

import ctypes
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch

from lmlab.errors import ConfigError
from lmlab.kernels.low_precision import PRODUCTS, low_precision_problem
from lmlab.processor import FAST_BFLOAT16
from lmlab.training.distributed import SINGLE_PROCESS, DistributedContext


def resolve_device(name: str, distributed: DistributedContext = SINGLE_PROCESS) -> torch.device:
    """Return the device; auto takes CUDA, MPS or CPU. Raises ConfigError for one that is not there.

    Each of several processes on a machine takes the CUDA device of its local rank.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps and distributed.size == 1 else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            "trainer.device", f"'{name}' is not auto, cpu, mps, cuda or cuda:N"
        ) from None
    if distributed.size > 1 and device.index is not None:
        raise ConfigError(
            "trainer.device", f"'{name}' is one device for {distributed.size} processes"
        )
    if distributed.size > 1 and name == "cuda" and cuda:
        device = torch.device("cuda", distributed.local_rank % torch.cuda.device_count())
    if device.type == "cuda":
        count = torch.cuda.device_count() if cuda else 0
        if count <= (device.index or 0):
            found = f"this machine has {count}" if count else "torch finds none here"
            raise ConfigError(
                "trainer.device", f"'{name}' is not available, {found}; try device=auto"
            )
    if device.type == "mps" and not mps:
        raise ConfigError("trainer.device", "'mps' is not available; try device=auto")
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """Return the precision; auto takes bf16 where the device is faster at it than at fp32.

    Raises ConfigError for one that the device lacks.
    """
    if name in PRODUCTS:
        if problem := low_precision_problem(name, device):
            raise ConfigError("trainer.precision", f"'{name}' {problem}; use bf16 or auto")
        return name
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        return "bf16" if FAST_BFLOAT16 else "fp32"
    return "fp32"


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DTYPES |= {"fp8": torch.bfloat16, "mxfp8": torch.bfloat16}
"""What autocast computes in; under fp8 and mxfp8 the blocks' linear layers are narrower."""


def autocast_for(
    precision: str, device: torch.device
) -> Callable[[], AbstractContextManager[object]]:
    """Return the context that runs matrix products in the precision; weights stay float32."""
    if precision == "fp32":
        return nullcontext
    return partial(torch.autocast, device.type, dtype=DTYPES[precision])


def current_autocast(x: torch.Tensor) -> tuple[Callable[[], torch.autocast], torch.dtype]:
    """Return the context that computes as it is done here and now, and what products with `x` are
    computed in.
    """
    kind = x.device.type
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    # Without its cache, which would keep casts of weights from outside of a later graph.
    again = partial(torch.autocast, kind, dtype=dtype, enabled=enabled, cache_enabled=False)
    return again, dtype if enabled else x.dtype


def keep_freed_memory() -> None:
    """Make the C library keep large freed blocks for the next step.

    glibc returns each block above 32 MiB to the system, which clears its pages when they are used
    again: 4 to 14 % of a step on a CPU. Other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: no block is a mapping of its own
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: what is free at the end of the heap stays


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed the global generators by (seed, step, part of the batch).

    Dropout then does not depend on earlier steps, and a checkpoint needs no generator state.
    """
    torch.manual_seed(((seed * 1_000_003 + step) * 65_537 + rank) % 2**63)
