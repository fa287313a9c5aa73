"""What collective operations cost: alpha-beta models of rings, and of gradients in buckets.

A ring of `n` devices takes `latency * steps + bytes * (n - 1) / n / bandwidth` (Thakur et al.
2005); an all-reduce is a reduce-scatter and an all-gather, or goes up and down two trees, which has
fewer steps (Sanders et al. 2009). Latencies and the share of a link's data sheet that is reached
are those of NCCL's own model: github.com/NVIDIA/nccl, src/graph/tuning.cc (ring, protocol Simple)
and src/graph/topo.h (20.6 of 25 GB/s a link of an H100).
"""

import math
from dataclasses import dataclass

from lmlab.errors import UserError
from lmlab.gpu.sheets import Sheet

START = 8.4e-6
"""Seconds that starting a collective takes."""
LINK_STEP, NETWORK_STEP = 3.4e-6, 9.6e-6
"""Seconds of latency of a step of a ring inside a node, and between nodes."""
REACHED = 0.8
"""Share of a link's bandwidth that is reached."""


@dataclass(frozen=True)
class Group:
    """Devices that communicate."""

    size: int
    per_node: int
    """How many of them are in one node."""

    @property
    def nodes(self) -> int:
        """Nodes that the group spans."""
        return math.ceil(self.size / self.per_node)


@dataclass(frozen=True)
class Cluster:
    """Nodes of equal devices."""

    devices: int
    per_node: int
    link: float | None
    """Bytes a second that a device sends inside its node; None: unknown."""
    network: float | None
    """Bytes a second that a device sends to other nodes; None: unknown."""

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return math.ceil(self.devices / self.per_node)

    def group(self, size: int, stride: int = 1) -> Group:
        """Return a group of `size` devices, each `stride` devices after the one before."""
        return Group(size, max(1, min(size, self.per_node // stride)))

    def bandwidth(self, group: Group) -> float:
        """Return the bytes a second through a ring of the group.

        A ring enters and leaves each node once for every device that the group has there, so that
        all their connections to the network carry it.
        """
        assert self.link is not None
        if group.nodes == 1:
            return REACHED * self.link
        assert self.network is not None
        return REACHED * min(self.link, group.per_node * self.network)

    def all_gather(self, group: Group, size: float) -> float:
        """Return the seconds until each device has all `size` bytes, of which each had a share."""
        if group.size == 1:
            return 0.0
        return START + self._half(group, size)

    reduce_scatter = all_gather

    def all_reduce(self, group: Group, size: float) -> float:
        """Return the seconds until each device has the sum of `size` bytes of all."""
        if group.size == 1:
            return 0.0
        crossings = math.ceil(math.log2(group.nodes))
        tree = 2 * ((group.per_node - 1) * LINK_STEP + crossings * NETWORK_STEP)
        tree += 2 * size / self.bandwidth(group)
        return START + min(tree, 2 * self._half(group, size))

    def broadcast(self, group: Group, size: float) -> float:
        """Return the seconds until each device has the `size` bytes of one, in a pipelined ring."""
        if group.size == 1:
            return 0.0
        return START + LINK_STEP + size / self.bandwidth(group)

    def _half(self, group: Group, size: float) -> float:
        crossings = group.nodes - 1
        latency = (group.size - 1 - crossings) * LINK_STEP + crossings * NETWORK_STEP
        return latency + size * (group.size - 1) / group.size / self.bandwidth(group)


def cluster_of(
    sheet: Sheet,
    devices: int,
    per_node: int | None = None,
    link: float | None = None,
    network: float | None = None,
) -> Cluster:
    """Return the cluster of `devices` with a sheet's links; arguments replace its figures.

    Raises UserError for links that the devices need and that are unknown.
    """
    if devices < 1:
        raise UserError(f"--devices must be 1 or more, got {devices}")
    count = per_node or sheet.devices_per_node or 1
    if count < 1:
        raise UserError(f"--devices-per-node must be 1 or more, got {count}")
    count = min(count, devices)
    if devices % count:
        raise UserError(f"--devices {devices} is not a multiple of {count} devices a node")
    cluster = Cluster(devices, count, link or sheet.link, network or sheet.network)
    if devices > 1 and cluster.link is None and count > 1:
        raise UserError(_unknown(sheet, "link", "inside a node", "--link"))
    if cluster.nodes > 1 and cluster.network is None:
        raise UserError(_unknown(sheet, "network", "between nodes", "--network"))
    if cluster.link is None:  # each device is a node
        return Cluster(devices, count, cluster.network, cluster.network)
    return cluster


def _unknown(sheet: Sheet, field: str, where: str, option: str) -> str:
    return (
        f"the sheet of {sheet.name} has no `{field}`, the bytes a second of a device {where}; "
        f"give {option} X, or add the field to a sheet of your own"
    )


def bucket_overhead(size: float, bandwidth: float, start: float, buckets: int) -> float:
    """Return the seconds that gradients in buckets add to a step, if compute takes as long.

    `s / (n w) + n o`: the last of n buckets of s bytes starts after the backward pass, and each
    costs o seconds to start.
    """
    return size / (buckets * bandwidth) + buckets * start


def best_buckets(size: float, bandwidth: float, start: float) -> float:
    """Return the number of buckets with the least `bucket_overhead`: `sqrt(s / (w o))`."""
    return math.sqrt(size / (bandwidth * start))


def compute_bound_tokens(flops: float, bandwidth: float, d_ff: int, axes: int = 2) -> float:
    """Return the tokens a device above which compute takes longer than communication.

    FSDP and tensor parallelism together, each on its own axis of links: `(C / W)^2 / (M F)` with M
    axes for FSDP and one for tensor parallelism, of a feed-forward of width F (Austin et al. 2025,
    How to Scale Your Model).
    """
    return (flops / bandwidth) ** 2 / (axes * d_ff)
