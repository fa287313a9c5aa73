"""Memory of one device at the fullest moment of a training step, by part."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate

from lmlab.planning.layout import Layout
from lmlab.planning.optimizer_state import OptimizerBytes
from lmlab.planning.pieces import Piece, Pieces

FLOAT32 = 4


@dataclass(frozen=True)
class Memory:
    """Bytes of one device at a moment."""

    moment: str
    weights: float
    gradients: float
    optimizer: float
    activations: float = 0.0
    logits: float = 0.0
    """What head and loss hold: logits, their gradients."""
    buffers: float = 0.0
    """Gathered weights, gradients that are not divided yet, buffers of the optimizer."""

    @property
    def total(self) -> float:
        """Bytes together."""
        return sum(size for size in self.parts().values())

    def parts(self) -> dict[str, float]:
        """Return the bytes by part."""
        return {name: value for name, value in asdict(self).items() if name != "moment"}


@dataclass(frozen=True)
class State:
    """What is kept from step to step, of the model that one device computes."""

    optimizer: OptimizerBytes
    accumulates: bool
    """Whether a step has several micro-batches."""
    checkpointed: bool
    """Whether blocks keep their input only."""


def peak_memory(layout: Layout, pieces: Pieces, state: State) -> Memory:
    """Return the memory of the fullest moment of a step after the first."""
    moments = _sharded if layout.sharded else _whole
    return max(moments(layout, pieces, state), key=lambda memory: memory.total)


def moments_of(layout: Layout, pieces: Pieces, state: State) -> dict[str, Memory]:
    """Return the memory before the forward pass, at its fullest, and in the update."""
    moments = _sharded if layout.sharded else _whole
    return {memory.moment: memory for memory in moments(layout, pieces, state)}


def _kept(pieces: Pieces, checkpointed: bool) -> list[int]:
    """Return the bytes that blocks before each block, and all of them at the end, keep."""
    each = [b.whole_input if checkpointed else b.input + b.saved for b in pieces.blocks]
    return [0, *accumulate(each)]


def _backward(block: Piece, checkpointed: bool) -> tuple[int, int]:
    """Return what a block holds in its backward pass, and the part that is its gradients."""
    own = block.whole_input if checkpointed else block.input
    most = max(block.backward, block.forward) if checkpointed else block.backward
    gradients = block.backward - block.backward_without_gradients
    return own + most - gradients, gradients


def _whole(layout: Layout, pieces: Pieces, state: State) -> Iterator[Memory]:
    """Yield the moments of strategies in which each device has all weights."""
    total = pieces.total * FLOAT32
    owned = pieces.owned(layout.shard_optimizer)
    weights, optimizer = total, state.optimizer.state * owned
    kept = _kept(pieces, state.checkpointed)
    # DDP keeps its buckets, of which the gradients are views, between steps.
    views = layout.kind in ("ddp", "zero1")
    always = total if views or state.accumulates else 0

    def at(moment: str, gradients: float, activations: float, **more: float) -> Memory:
        grads = max(always, gradients)
        return Memory(moment, weights, grads, optimizer, activations, **more)

    yield Memory("before the step", weights, total if views else 0, optimizer)
    for block, before in zip(pieces.blocks, kept, strict=False):
        yield at("forward pass", 0, before + block.forward)
    head, all_kept = pieces.head, kept[-1] + pieces.head.input
    yield at("loss", 0, all_kept, logits=head.forward)
    # A gradient is there beside the bucket that it is copied to.
    copied = FLOAT32 * head.largest if always else 0
    yield at("head, backward", 0, all_kept, logits=head.backward_without_gradients)
    yield at(
        "head, backward", head.parameters * FLOAT32, all_kept,
        logits=head.backward - copied if always else head.backward_without_gradients,
    )  # fmt: skip
    done = head.parameters * FLOAT32
    for block, before in zip(reversed(pieces.blocks), reversed(kept[:-1]), strict=True):
        held, gradients = _backward(block, state.checkpointed)
        yield at("backward pass", done + gradients, before + held)
        done += block.parameters * FLOAT32
    yield at("embedding, backward", done, pieces.stem.backward)
    yield at("gradients summed", total, 0, buffers=_summing(layout, total))
    yield at("update", total, 0, buffers=_updating(state, owned))


def _summing(layout: Layout, gradients: float) -> float:
    """Return the bytes of the copies of gradients that are summed over the devices."""
    return gradients if layout.kind in ("ddp_flat", "ddp_bucketed") else 0.0


def _updating(state: State, owned: float) -> float:
    """Return what the update of a share of the elements needs besides the optimizer's state."""
    return max(state.optimizer.divided * owned, state.optimizer.whole)


def _sharded(layout: Layout, pieces: Pieces, state: State) -> Iterator[Memory]:
    """Yield the moments of FSDP: blocks are gathered one by one, all else at once (the root).

    A gathered group is there twice while it is copied from the buffer of the all-gather, which is
    kept until the next group is there. Gradients are copied to the buffer of the reduce-scatter,
    which is kept until the next one.
    """
    size, element, reduced = layout.shard, layout.gathered, layout.reduced
    shards = pieces.total * FLOAT32 / size
    always = shards if state.accumulates else 0
    optimizer = state.optimizer.state / size
    kept = _kept(pieces, state.checkpointed)
    gathered = [b.parameters * element for b in pieces.blocks]
    root = pieces.root * FLOAT32

    def at(
        moment: str, gradients: float, activations: float, buffers: float, logits: float = 0.0
    ) -> Memory:
        grads = max(always, gradients)
        return Memory(moment, shards, grads, optimizer, activations, logits, buffers)

    yield Memory("before the step", shards, 0, optimizer)
    yield at("first block gathered", 0, pieces.stem.forward, 2 * root + gathered[0])
    for i, block in enumerate(pieces.blocks):
        there = gathered[i] if layout.reshard else sum(gathered[: i + 1])
        yield at("forward pass", 0, kept[i] + block.forward, root + there + gathered[i])
    head, all_kept = pieces.head, kept[-1] + pieces.head.input
    there = 0 if layout.reshard else sum(gathered)
    yield at("loss", 0, all_kept, root + there + gathered[-1], head.forward)
    prefetched = gathered[-1] if layout.reshard else there
    own = head.backward - head.backward_without_gradients
    yield at("head, backward", 0, all_kept, root + prefetched + own, head.backward - own)
    done = 0.0
    head_gradients = head.parameters * FLOAT32
    for i in reversed(range(len(pieces.blocks))):
        block = pieces.blocks[i]
        held, own = _backward(block, state.checkpointed)
        before = pieces.blocks[i + 1].parameters * reduced if i + 1 < len(gathered) else 0
        if layout.reshard:
            there = gathered[i] + (gathered[i - 1] if i else 0)
        else:
            there = sum(gathered[: i + 1])
        buffers = root + head_gradients + there + own + before
        yield at("backward pass", done, kept[i] + held, buffers)
        done += block.parameters * FLOAT32 / size
        yield at(
            "gradients scattered",
            done,
            kept[i],
            root + head_gradients + there - gathered[i] + block.parameters * (reduced + element),
        )
    before = pieces.blocks[0].parameters * reduced
    stem = pieces.stem
    yield at("embedding, backward", done, stem.backward, root + head_gradients + before)
    yield at("gradients scattered", shards, 0, pieces.root * (reduced + FLOAT32))
    yield Memory("update", shards, shards, optimizer, buffers=_updating(state, 1 / size))
