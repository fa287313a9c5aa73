"""The layouts that the group `parallel` offers for a cluster."""

from lmlab.errors import UserError
from lmlab.planning.layout import Kind, Layout
from lmlab.planning.links import Cluster

BUCKET = 25 * 2**20
"""Bytes of a bucket of torch's DistributedDataParallel, and of `ddp_bucketed`."""
NOT_BUCKETED: tuple[Kind, ...] = ("ddp_overlapped", "ddp_flat", "ddp_naive")


def layouts(cluster: Cluster, kind: str | None = None) -> list[Layout]:
    """Return the layouts for a cluster, simple ones first; with `kind` those of one strategy.

    One device trains without a strategy. Raises UserError when there is no layout of the kind.
    """
    found = _all(cluster)
    if cluster.devices > 1 and kind is not None:
        found = [layout for layout in found if layout.kind == kind]
    if not found:
        needs = "several nodes of several devices" if kind == "hsdp" else "several devices a node"
        if kind == "none":
            raise UserError(f"parallel=none trains on one device, not on {cluster.devices}")
        raise UserError(f"parallel={kind} needs {needs}")
    return found


def _all(cluster: Cluster) -> list[Layout]:
    n, node = cluster.devices, cluster.per_node
    if n == 1:
        return [Layout("none", 1)]
    kept = {"reshard_after_forward": "false"}
    found = [
        Layout("ddp", n),
        Layout("ddp_bucketed", n, bucket=BUCKET),
        *(Layout(kind, n) for kind in NOT_BUCKETED),
        Layout("zero1", n, shard_optimizer=n),
        Layout("fsdp", n, shard=n),
        Layout("fsdp", n, kept, shard=n, reshard=False),
    ]
    if 1 < node < n:
        found.append(Layout("hsdp", n, shard=node))
    for size in range(2, node + 1):
        if node % size == 0:
            found.append(Layout("tp", n, {"size": str(size)}, shard=n // size, tensor=size))
    return found
