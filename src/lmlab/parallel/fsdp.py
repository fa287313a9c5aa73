"""torch's FSDP2: weights, gradients and optimizer state divided among processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from lmlab.parallel.config import ShardedWeightsConfig, gathered_in
from lmlab.parallel.division import Division
from lmlab.parallel.initial import materialize
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
        shards = mesh.size(mesh.ndim - 1)
        self.division = Division(weights=shards, optimizer_state=shards)
        self.reshard_after_forward = config.reshard_after_forward
        self.policy = MixedPrecisionPolicy(
            param_dtype=DTYPES[gathered_in(config.gather_dtype, precision)],
            reduce_dtype=DTYPES[config.reduce_dtype],
            cast_forward_inputs=False,  # the residual stream stays as autocast leaves it
        )

    def wrap(self, objective: nn.Module, model: nn.Module) -> nn.Module:
        """Shard the objective in place; a model on the meta device gets its initial weights."""
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
        objective.register_forward_hook(self._after_forward)
        materialize(model, self.mesh.device_type)
        return objective

    def _after_forward(self, *arguments: object) -> None:
        """Free the root's weights when no backward pass will: the optimizer changes the parts."""
        if not torch.is_grad_enabled():
            self.module.reshard()

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Add up gradients inside a group only; groups of HSDP send theirs once a step.

        Without that, every process would keep whole gradients between micro-batches.
        """
        self.module.set_requires_all_reduce(False)
        try:
            yield
        finally:
            self.module.set_requires_all_reduce(True)

    def full_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Gather the whole weights on rank 0, in CPU memory; empty on other ranks."""
        return gather_whole(model)


def gather_whole(model: nn.Module) -> dict[str, Tensor]:
    """Return the whole weights of a sharded model on rank 0, in CPU memory; empty elsewhere."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: Any = get_model_state_dict(model, options=options)
    return weights
