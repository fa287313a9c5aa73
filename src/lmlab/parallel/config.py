"""Configuration of how a model is trained by several processes."""

from typing import Annotated, Literal

from pydantic import Field

from lmlab.schema import Config


class SingleProcessConfig(Config):
    """One process."""

    kind: Literal["none"]


class DDPConfig(Config):
    """Whole model in every process, gradients averaged by torch's DDP (Li et al. 2020).

    In one process the same as none.
    """

    kind: Literal["ddp"]


class ShardedWeightsConfig(Config):
    """Keys of the strategies that divide weights among processes and gather a block at a time."""

    reshard_after_forward: bool
    """Free a block's gathered weights after its forward pass and gather them again for the backward
    pass (ZeRO stage 3); false keeps them in between (stage 2)."""
    gather_dtype: Literal["fp32", "bf16"] | None
    """Precision in which the weights of blocks are gathered; null: bf16 where trainer.precision is
    bf16, else fp32."""
    reduce_dtype: Literal["fp32", "bf16"]
    """Precision in which gradients are added up."""


class FSDPConfig(ShardedWeightsConfig):
    """Weights, gradients and optimizer state divided among all processes (Zhao et al. 2023)."""

    kind: Literal["fsdp"]


ParallelConfig = Annotated[
    SingleProcessConfig | DDPConfig | FSDPConfig, Field(discriminator="kind")
]
