"""The layouts that the group `parallel` offers for a cluster."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmlab.errors import ConfigError, UserError
from lmlab.parallel.config import gathered_in
from lmlab.planning.layout import Kind, Layout
from lmlab.planning.links import Cluster

MIB = 2**20
BUCKET = 25.0
"""MiB of a bucket of torch's DistributedDataParallel, and of `ddp_bucketed`."""
NOT_BUCKETED: tuple[Kind, ...] = ("ddp_overlapped", "ddp_flat", "ddp_naive")
BYTES = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True)
class Request:
    """What of `parallel` a plan keeps; all else is planned."""

    precision: str
    """Of training, as a strategy is told it."""
    kind: str | None = None
    """The strategy; None: any."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """Values of its other keys."""

    @property
    def settings(self) -> dict[str, str]:
        """The keys of `given` as they are written on a command line."""
        return {key: _written(value) for key, value in self.given.items()}


def layouts(cluster: Cluster, request: Request) -> list[Layout]:
    """Return the layouts for a cluster that keep what is requested, simple ones first.

    One device trains without a strategy. Raises UserError when there is no layout of the strategy,
    and for values that it cannot have on the devices.
    """
    n, kind = cluster.devices, request.kind
    if n == 1:
        return [Layout("none", 1)]
    if kind == "none":
        raise UserError(f"parallel=none trains on one device, not on {n}")
    found = [each for each in _all(cluster, request) if kind is None or each.kind == kind]
    if not found:
        needs = "several nodes of several devices" if kind == "hsdp" else "several devices a node"
        raise UserError(f"parallel={kind} needs {needs}")
    return found


def _all(cluster: Cluster, request: Request) -> list[Layout]:
    n, given, settings = cluster.devices, request.given, request.settings
    bucket = given.get("bucket_size_mb", BUCKET)
    return [
        Layout("ddp", n, bucket=BUCKET * MIB),
        Layout("ddp_bucketed", n, settings, bucket=bucket and bucket * MIB),
        *(Layout(each, n) for each in NOT_BUCKETED),
        Layout("zero1", n, shard_optimizer=n, bucket=BUCKET * MIB),
        *_sharded(cluster, request),
    ]


def _sharded(cluster: Cluster, request: Request) -> list[Layout]:
    """Return the layouts that gather weights."""
    n, node, given, settings = cluster.devices, cluster.per_node, request.given, request.settings
    common: dict[str, Any] = {
        "gathered": BYTES[gathered_in(given.get("gather_dtype"), request.precision)],
        "reduced": BYTES[given.get("reduce_dtype", "fp32")],
        "reshard": given.get("reshard_after_forward", True),
    }
    found = [Layout("fsdp", n, settings, shard=n, **common)]
    if "reshard_after_forward" not in given:
        kept = settings | {"reshard_after_forward": "false"}
        found.append(Layout("fsdp", n, kept, shard=n, **common | {"reshard": False}))
    shard = given.get("shard_size")
    if shard is not None or 1 < node < n:
        shard = _group(cluster, "shard_size", shard or node)
        found.append(Layout("hsdp", n, settings, shard=shard, **common))
    if "size" in given:
        sizes = [_group(cluster, "size", given["size"] or n)]
    else:
        sizes = [size for size in range(2, node + 1) if node % size == 0]
    for size in sizes:
        named = {"size": f"{size}"} | settings
        found.append(Layout("tp", n, named, shard=n // size, tensor=size, **common))
    return found


def _group(cluster: Cluster, key: str, size: int) -> int:
    """Return the devices of a group; ConfigError where they divide neither all nor the nodes."""
    n, node = cluster.devices, cluster.per_node
    if n % size:
        raise ConfigError(
            f"parallel.{key}", f"{size} does not divide the {n} devices; choose a divisor"
        )
    if node % size and size % node:
        raise ConfigError(
            f"parallel.{key}",
            f"groups of {size} devices share nodes of {node} unevenly, which is not planned; "
            f"choose a divisor or a multiple of {node}",
        )
    return size


def _written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
