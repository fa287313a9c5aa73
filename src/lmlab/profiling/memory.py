"""The memory of a training step over time, and what holds it at the peak."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lmlab.profiling.trace import BACKWARD, PHASES, Event, Innermost, Trace, label

ACTIVATIONS, GRADIENTS, TEMPORARY = "activations", "gradients", "temporary"
KINDS = (GRADIENTS, ACTIVATIONS, TEMPORARY)
POINTS = 600
"""Points of a drawn timeline."""


@dataclass(frozen=True)
class Block:
    """One allocation from its beginning to its end."""

    begin: float
    end: float
    bytes: int
    kind: str
    where: str
    """The named range that allocated it."""
    operator: str


@dataclass(frozen=True)
class Memory:
    """Bytes that a step allocates beyond what was there before it."""

    times: list[float]
    """Seconds from the beginning of the step."""
    series: dict[str, list[int]]
    """Kind -> bytes at each time."""
    peak: int
    peak_at: float
    """Seconds from the beginning of the step."""
    holders: list[tuple[str, str, int]]
    """What is allocated at the peak, the largest first: kind, range, bytes."""
    largest: list[tuple[str, str, int]]
    """The largest single allocations at the peak: operator, range, bytes."""


def blocks_of(trace: Trace, step: Event) -> list[Block]:
    """Return the allocations of a step, each with its kind.

    What the forward pass leaves for the backward pass is an activation; what the backward pass
    leaves is a gradient, wherever it was allocated: a loss in chunks makes those of the head in the
    forward pass. What is freed in its own phase is temporary.
    """
    phases = [r for r in trace.ranges if r.name in PHASES and step.begin <= r.begin < step.end]
    where, operator = Innermost(trace.ranges), Innermost(trace.operators)
    divided = trace.divided
    open_blocks: dict[int, tuple[float, int, str, str, bool]] = {}
    blocks = []

    def close(address: int, end: float) -> None:
        begin, size, place, name, backward = open_blocks.pop(address)
        phase = next((p for p in phases if p.begin <= begin < p.end), None)
        kind = TEMPORARY
        if phase is not None and phase.name != "optimizer" and end > phase.end:
            later = (p for p in phases if p.name == "backward" and p.begin >= phase.begin)
            own = next(later, None)  # the backward pass of the same micro-batch
            left = backward or (own is not None and end > own.end)
            kind = GRADIENTS if left else ACTIVATIONS
        blocks.append(Block(begin, end, size, kind, place, name))

    for each in trace.allocations:
        if not step.begin <= each.at < step.end:
            continue
        if each.bytes > 0:
            op = operator(each.at, each.thread)
            outer = op
            while outer is not None and not outer.name.startswith(BACKWARD):
                outer = outer.parent
            name = op.name if op is not None else "outside of operators"
            place = label(where(each.at, each.thread), divided)
            values = (each.at, each.bytes, place, name, outer is not None)
            if each.address in open_blocks:  # its end was not recorded
                close(each.address, each.at)
            open_blocks[each.address] = values
        elif each.address in open_blocks:
            close(each.address, each.at)
    for address in list(open_blocks):
        close(address, step.end + 1.0)
    return blocks


def memory_of(trace: Trace, step: Event) -> Memory | None:
    """Return the memory of a step; None when the trace has no allocations."""
    blocks = blocks_of(trace, step)
    if not blocks:
        return None
    changes = sorted(
        [(b.begin, b.bytes, b.kind) for b in blocks]
        + [(b.end, -b.bytes, b.kind) for b in blocks if b.end <= step.end]
    )
    now: Counter[str] = Counter()
    points, peak, peak_at = [], -1, 0.0
    for at, size, kind in changes:
        now[kind] += size
        total = sum(now.values())
        points.append((at - step.begin, total, dict(now)))
        if total > peak:
            peak, peak_at = total, at
    kept = _thinned(points)
    live = [b for b in blocks if b.begin <= peak_at < b.end]
    holders: Counter[tuple[str, str]] = Counter()
    for block in live:
        holders[block.kind, block.where] += block.bytes
    live.sort(key=lambda b: -b.bytes)
    return Memory(
        [at for at, _, _ in kept],
        {kind: [held.get(kind, 0) for _, _, held in kept] for kind in KINDS},
        peak,
        peak_at - step.begin,
        [(kind, place, size) for (kind, place), size in holders.most_common()],
        [(b.operator, b.where, b.bytes) for b in live[:10]],
    )


Point = tuple[float, int, dict[str, int]]


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Return at most about `POINTS` points: of each stretch the highest."""
    size = max(1, len(points) // POINTS)
    groups = (points[i : i + size] for i in range(0, len(points), size))
    return [max(group, key=lambda point: point[1]) for group in groups]
