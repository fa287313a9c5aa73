"""The one place that decides which strategy trains a model."""

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch

from lmlab.errors import ConfigError
from lmlab.parallel.config import ParallelConfig
from lmlab.parallel.strategy import UNDIVIDED, Strategy

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from lmlab.parallel.data_parallel import DataParallel


def build_strategy(
    config: ParallelConfig, size: int, device: torch.device, precision: str
) -> Strategy:
    """Return the strategy for `size` processes; one process trains without any.

    Raises ConfigError when the processes do not fit the strategy. All processes must call it.
    """
    if size == 1:
        return UNDIVIDED
    if config.kind == "none":
        raise ConfigError(
            "parallel", f"'none' trains in one process, and {size} were started; use parallel=ddp"
        )
    if config.kind == "ddp":
        from lmlab.parallel.ddp import DDP

        return DDP(device)
    if config.kind == "zero1":
        from lmlab.parallel.sharded_optimizer import Zero1

        return Zero1(device)
    if config.kind in ("fsdp", "hsdp"):
        from lmlab.parallel.fsdp import FSDP

        shards = size
        if config.kind == "hsdp":
            shards = config.shard_size or int(os.environ.get("LOCAL_WORLD_SIZE", size))
            _require_divisor("parallel.shard_size", shards, size)
        dims = {"replicate": size // shards, "shard": shards}
        return FSDP(config, _mesh(device, dims if shards < size else {"shard": size}), precision)
    if config.kind == "tp":
        from lmlab.parallel.tensor_parallel import TensorParallel

        group = model_parallel_size(config, size)
        mesh = _mesh(device, {"data": size // group, "tensor": group})
        return TensorParallel(config, mesh, precision)
    from lmlab.parallel import data_parallel
    from lmlab.parallel.data_parallel import ManualDDP

    variants: dict[str, Callable[[torch.nn.Module], DataParallel]] = {
        "ddp_naive": data_parallel.NaiveDDP,
        "ddp_flat": data_parallel.FlatDDP,
        "ddp_overlapped": data_parallel.OverlappedDDP,
    }
    if config.kind == "ddp_bucketed":
        bucketed = partial(data_parallel.BucketedDDP, bucket_size_mb=config.bucket_size_mb)
        return ManualDDP(bucketed)
    return ManualDDP(variants[config.kind])


def model_parallel_size(config: ParallelConfig, size: int) -> int:
    """Return how many neighbouring processes read the same sequences; raises ConfigError."""
    if config.kind != "tp" or size == 1:
        return 1
    group = config.size or size
    _require_divisor("parallel.size", group, size)
    return group


def _require_divisor(key: str, part: int, size: int) -> None:
    if size % part:
        raise ConfigError(key, f"{part} does not divide the {size} processes; choose a divisor")


def _mesh(device: torch.device, dims: dict[str, int]) -> "DeviceMesh":
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(device.type, tuple(dims.values()), mesh_dim_names=tuple(dims))
