"""How long a training step takes, by a stated model of compute, links and their overlap.

Compute is FLOPs by the peak of the device's matrix units times the share that training attains;
the update is bound by memory. A collective that overlaps hides behind the compute of the block next
to it; what is longer than that compute is exposed.
"""

from dataclasses import dataclass

from lmlab.gpu.transformer import ADAMW_BYTES
from lmlab.planning.layout import Layout
from lmlab.planning.links import Cluster
from lmlab.planning.memory import FLOAT32
from lmlab.planning.pieces import Pieces


@dataclass(frozen=True)
class Work:
    """FLOPs of the forward pass of one sequence."""

    blocks: float
    """All blocks together."""
    outside: float
    """Output head."""


@dataclass(frozen=True)
class Speed:
    """What one device computes and moves."""

    flops: float
    """FLOP/s that matrix products attain."""
    memory: float
    """Bytes a second between the memory and the chip."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step."""

    compute: float
    """Forward and backward passes."""
    update: float
    communication: float
    """All of it, whether hidden by compute or not."""
    exposed: float
    """Communication that nothing hides."""

    @property
    def total(self) -> float:
        """Seconds together."""
        return self.compute + self.update + self.exposed


@dataclass(frozen=True)
class MicroBatch:
    """How a device goes through its sequences."""

    sequences: int
    count: int
    """Micro-batches of a step."""
    checkpointed: bool
    element: int
    """Bytes of an element of activations in the computation."""
    tokens: int
    """Tokens of a sequence."""


def step_time(
    layout: Layout,
    pieces: Pieces,
    work: Work,
    speed: Speed,
    cluster: Cluster,
    batch: MicroBatch,
) -> StepTime:
    """Return the time of a step; `pieces` and `work` are of the model that one device computes."""
    passes = 3 + batch.checkpointed
    forward = batch.sequences * work.blocks / speed.flops / len(pieces.blocks)
    outside = batch.sequences * work.outside / speed.flops
    compute = batch.count * (passes * forward * len(pieces.blocks) + 3 * outside)
    owned = pieces.total / layout.shard * pieces.owned(layout.shard_optimizer)
    update = owned * ADAMW_BYTES / speed.memory
    if layout.sharded:
        timed = _sharded(layout, pieces, cluster, batch, forward, outside)
    else:
        timed = _whole(layout, pieces, cluster, batch, forward, outside)
    in_blocks = _tensor(layout, pieces, cluster, batch)
    return StepTime(compute, update, timed[0] + in_blocks, timed[1] + in_blocks)


def _sharded(
    layout: Layout,
    pieces: Pieces,
    cluster: Cluster,
    batch: MicroBatch,
    forward: float,
    outside: float,
) -> tuple[float, float]:
    """Return all and the exposed communication of FSDP.

    The next block is gathered while one computes; gradients of a block are scattered while the next
    one computes. The root, and the last block's gradients, wait. Groups of HSDP sum their gradients
    after the last micro-batch alone.
    """
    shard = cluster.group(layout.shard, layout.tensor)
    copies = cluster.group(layout.replicas, layout.tensor * layout.shard)
    block = max(b.parameters for b in pieces.blocks)
    gather = cluster.all_gather(shard, block * layout.gathered)
    gather_root = cluster.all_gather(shard, pieces.root * FLOAT32)

    count = len(pieces.blocks)
    again = gather if layout.reshard else 0.0
    back = (2 + batch.checkpointed) * forward

    def micro_batch(last: bool) -> tuple[float, float]:
        def reduced(parameters: int) -> float:
            size = parameters * layout.reduced
            between = cluster.all_reduce(copies, size / layout.shard) if last else 0.0
            return cluster.reduce_scatter(shard, size) + between

        scatter, scatter_root = reduced(block), reduced(pieces.root)
        all_of_it = count * (gather + again + scatter) + gather_root + scatter_root
        exposed = gather_root + gather + (count - 1) * max(0.0, gather - forward)
        exposed += max(0.0, again - 2 * outside)
        exposed += (count - 1) * max(0.0, again + scatter - back) + scatter + scatter_root
        return all_of_it, exposed

    others, last = micro_batch(last=False), micro_batch(last=True)
    more = batch.count - 1
    return more * others[0] + last[0], more * others[1] + last[1]


def _whole(
    layout: Layout,
    pieces: Pieces,
    cluster: Cluster,
    batch: MicroBatch,
    forward: float,
    outside: float,
) -> tuple[float, float]:
    """Return all and the exposed communication of summing gradients once a step."""
    group = cluster.group(layout.data, layout.tensor)
    size = pieces.total * FLOAT32
    if layout.data == 1:
        return 0.0, 0.0
    tensors = pieces.tensors
    if layout.kind == "ddp_naive":
        seconds = tensors * cluster.all_reduce(group, size / tensors)
        return seconds, seconds
    if layout.kind == "ddp_flat":
        seconds = cluster.all_reduce(group, size)
        return seconds, seconds
    bucket = size / tensors if layout.kind == "ddp_overlapped" else layout.bucket or size
    buckets = max(1.0, size / bucket)
    each = cluster.all_reduce(group, size / buckets)
    window = (2 + batch.checkpointed) * forward * len(pieces.blocks) + 2 * outside
    hidden = min((buckets - 1) * each, window * (1 - 1 / buckets))
    # With a sharded optimizer each weight comes from its owner after the update.
    sent = tensors * cluster.broadcast(group, size / tensors) if layout.kind == "zero1" else 0.0
    return buckets * each + sent, buckets * each - hidden + sent


def _tensor(layout: Layout, pieces: Pieces, cluster: Cluster, batch: MicroBatch) -> float:
    """Return the communication of tensor parallelism: two sums of activations a block and pass."""
    if layout.tensor == 1:
        return 0.0
    group = cluster.group(layout.tensor)
    size = pieces.width * batch.tokens * batch.sequences * batch.element
    sums = len(pieces.blocks) * 2 * (2 + batch.checkpointed)
    return batch.count * sums * cluster.all_reduce(group, size)
