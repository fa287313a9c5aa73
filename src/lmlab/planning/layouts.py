"""The layouts that the group `parallel` offers for a cluster."""

from lmlab.planning.layout import Kind, Layout
from lmlab.planning.links import Cluster

BUCKET_MB = 25


def layouts(cluster: Cluster, kind: str | None = None) -> list[Layout]:
    """Return the layouts for a cluster, simple ones first; with `kind` those of one strategy."""
    return [layout for layout in _all(cluster) if kind in (None, layout.kind)]


def _all(cluster: Cluster) -> list[Layout]:
    n = cluster.devices
    if n == 1:
        return [Layout("none", 1)]
    whole: tuple[Kind, ...] = ("ddp", "ddp_overlapped", "ddp_flat", "ddp_naive")
    found = [Layout(kind, n) for kind in whole]
    found.insert(1, Layout("ddp_bucketed", n, bucket=BUCKET_MB * 1e6))
    found.append(Layout("zero1", n, shard_optimizer=n))
    found.append(Layout("fsdp", n, shard=n))
    found.append(Layout("fsdp", n, {"reshard_after_forward": "false"}, shard=n, reshard=False))
    if 1 < cluster.per_node < n:
        found.append(Layout("hsdp", n, shard=cluster.per_node))
    for tensor in (2, 4, 8):
        if tensor <= cluster.per_node and cluster.per_node % tensor == 0:
            found.append(Layout("tp", n, {"size": str(tensor)}, tensor=tensor))
    return found
