"""How a strategy divides a model, its training state and the batch over devices."""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "none", "ddp", "ddp_naive", "ddp_flat", "ddp_overlapped", "ddp_bucketed", "zero1",
    "fsdp", "hsdp", "tp",
]  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """One way to train a model on some devices."""

    kind: Kind
    devices: int
    settings: dict[str, str] = field(default_factory=dict, hash=False)
    """Keys of `parallel` that are given, or differ from their file."""
    shard: int = 1
    """Devices over which weights, gradients and optimizer state are divided (FSDP)."""
    shard_optimizer: int = 1
    """Devices over which the optimizer state alone is divided (ZeRO stage 1)."""
    tensor: int = 1
    """Devices that compute each block together; `shard` counts their groups."""
    reshard: bool = True
    """Whether gathered weights are freed between forward and backward pass."""
    bucket: float | None = None
    """Bytes of a bucket of gradients; None: all in one."""
    gathered: int = 4
    """Bytes of an element of a block's gathered weight; all other weights are float32."""
    reduced: int = 4
    """Bytes of an element of a gradient that is summed over shards."""

    @property
    def data(self) -> int:
        """Devices or groups of devices that have different sequences."""
        return self.devices // self.tensor

    @property
    def sharded(self) -> bool:
        """Whether weights are divided and gathered."""
        return self.kind in ("fsdp", "hsdp") or (self.kind == "tp" and self.shard > 1)

    @property
    def replicas(self) -> int:
        """Copies of the sharded model."""
        return self.data // self.shard

    @property
    def overrides(self) -> list[str]:
        """What to add to `train.py`."""
        return [f"parallel={self.kind}", *(f"parallel.{k}={v}" for k, v in self.settings.items())]

    def __str__(self) -> str:
        words = [self.kind, *(f"{key}={value}" for key, value in self.settings.items())]
        return " ".join(words)
