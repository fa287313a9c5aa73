"""The one place that decides which strategy trains a model."""

import torch

from lmlab.errors import ConfigError
from lmlab.parallel.config import ParallelConfig
from lmlab.parallel.strategy import UNDIVIDED, Strategy


def build_strategy(
    config: ParallelConfig, size: int, device: torch.device, precision: str
) -> Strategy:
    """Return the strategy for `size` processes; one process trains without any.

    Raises ConfigError when the processes do not fit the strategy.
    """
    if size == 1:
        return UNDIVIDED
    if config.kind == "none":
        raise ConfigError(
            "parallel", f"'none' trains in one process, and {size} were started; use parallel=ddp"
        )
    if config.kind == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh

        from lmlab.parallel.fsdp import FSDP

        mesh = init_device_mesh(device.type, (size,), mesh_dim_names=("shard",))
        return FSDP(config, mesh, precision)
    from lmlab.parallel.ddp import DDP

    return DDP(device)
