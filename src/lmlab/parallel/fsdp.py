"""torch's FSDP2: weights, gradients and optimizer state divided among processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from lmlab.parallel.config import ShardedWeightsConfig
from lmlab.parallel.strategy import Strategy

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class FSDP(Strategy):
    """Each process holds a part of every weight, and gathers the weights of one block at a time.

    ZeRO stage 3 (Rajbhandari et al. 2020) by torch's `fully_shard` (Zhao et al. 2023). Embedding,
    final norm and head are one group, gathered in float32 for the whole forward and backward pass.
    On a mesh of two dimensions the first one holds copies of the second (HSDP).
    """

    sharded: ClassVar[bool] = True

    def __init__(self, config: ShardedWeightsConfig, mesh: DeviceMesh, precision: str) -> None:
        self.mesh = mesh
        self.reshard_after_forward = config.reshard_after_forward
        gather = config.gather_dtype or ("bf16" if precision == "bf16" else "fp32")
        self.policy = MixedPrecisionPolicy(
            param_dtype=DTYPES[gather],
            reduce_dtype=DTYPES[config.reduce_dtype],
            cast_forward_inputs=False,  # the residual stream stays as autocast leaves it
        )

    def wrap(self, objective: nn.Module, model: nn.Module) -> nn.Module:
        """Shard the objective in place."""
        reduce_only = MixedPrecisionPolicy(
            reduce_dtype=self.policy.reduce_dtype, cast_forward_inputs=False
        )
        blocks = model.get_submodule("blocks")
        for block in blocks.children():
            fully_shard(
                block,
                mesh=self.mesh,
                reshard_after_forward=self.reshard_after_forward,
                mp_policy=self.policy,
            )
        self.module: FSDPModule = fully_shard(objective, mesh=self.mesh, mp_policy=reduce_only)
        return objective

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Keep whole gradients in every process, so that they are added up once a step."""
        self.module.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.module.set_requires_gradient_sync(True)

    def full_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Gather the whole weights on rank 0, in CPU memory; empty on other ranks."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights: Any = get_model_state_dict(model, options=options)
        return weights
