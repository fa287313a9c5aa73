"""Configuration of how a model is trained by several processes."""

from typing import Annotated, Literal

from pydantic import Field

from lmlab.errors import ConfigError
from lmlab.schema import Config

Dtype = Literal["fp32", "bf16"]
Count = Annotated[int, Field(ge=1)]


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
    gather_dtype: Dtype | None
    """Precision in which the weights of blocks are gathered; null: bf16 where trainer.precision is
    bf16, else fp32."""
    reduce_dtype: Dtype
    """Precision in which gradients are added up."""


class FSDPConfig(ShardedWeightsConfig):
    """Weights, gradients and optimizer state divided among all processes (Zhao et al. 2023)."""

    kind: Literal["fsdp"]


class HSDPConfig(ShardedWeightsConfig):
    """FSDP inside groups of processes, whose gradients are averaged between groups."""

    kind: Literal["hsdp"]
    shard_size: Count | None
    """Processes that divide the model among them; null: those of one machine."""


class TPConfig(ShardedWeightsConfig):
    """Heads and feed-forward widths divided among processes (Megatron-LM; Shoeybi et al. 2019).

    Several groups of such processes divide the weights as fsdp does.
    """

    kind: Literal["tp"]
    size: Count | None
    """Neighbouring processes that divide each layer and read the same sequences; null: all."""


class NaiveDDPConfig(Config):
    """One all-reduce for each parameter after the backward pass."""

    kind: Literal["ddp_naive"]


class FlatDDPConfig(Config):
    """One all-reduce of all gradients together after the backward pass."""

    kind: Literal["ddp_flat"]


class OverlappedDDPConfig(Config):
    """One all-reduce for each parameter as soon as its gradient is ready."""

    kind: Literal["ddp_overlapped"]


class BucketedDDPConfig(Config):
    """One all-reduce for each bucket of gradients as soon as its last gradient is ready."""

    kind: Literal["ddp_bucketed"]
    bucket_size_mb: Annotated[float, Field(gt=0)] | None
    """Gradients sent together, in MiB; null: all."""


class Zero1Config(Config):
    """Optimizer state divided among processes (ZeRO stage 1; Rajbhandari et al. 2020)."""

    kind: Literal["zero1"]


def gathered_in(given: Dtype | None, precision: str) -> Dtype:
    """Return the precision in which the weights of blocks are gathered, of `gather_dtype`.

    Raises ConfigError for weights in bf16 that are to be multiplied in fp32.
    """
    if given == "bf16" and precision == "fp32":
        raise ConfigError(
            "parallel.gather_dtype",
            "'bf16' weights cannot be multiplied under trainer.precision=fp32; use fp32 or null, "
            "or another precision",
        )
    return given or ("bf16" if precision == "bf16" else "fp32")


ParallelConfig = Annotated[
    SingleProcessConfig
    | DDPConfig
    | FSDPConfig
    | HSDPConfig
    | TPConfig
    | NaiveDDPConfig
    | FlatDDPConfig
    | OverlappedDDPConfig
    | BucketedDDPConfig
    | Zero1Config,
    Field(discriminator="kind"),
]
