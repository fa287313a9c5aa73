"""What kept the device busy, and the phase and part of the model that each piece belongs to."""

import bisect
from dataclasses import dataclass

from lmlab.profiling.spans import Span
from lmlab.profiling.trace import BACKWARD, PHASES, Event, Innermost, Trace, label


@dataclass(frozen=True)
class Work:
    """What kept the device busy: a kernel, or an operator without those inside it."""

    name: str
    begin: float
    seconds: float
    launched: float
    """When the CPU launched it; an operator on a CPU: its beginning."""
    phase: str
    """forward, backward, optimizer, or empty; of a kernel that which launched it."""
    where: str
    """The innermost named range of the forward pass that it belongs to."""
    backward: bool
    """Whether it computes gradients, be it inside the forward phase."""

    @property
    def span(self) -> Span:
        """When a kernel ran."""
        return self.begin, self.begin + self.seconds


def work(trace: Trace) -> list[Work]:
    """Return what the device did, each part once, with the range that it belongs to.

    An operator of the backward pass belongs to the range whose operator it differentiates: both
    have one sequence number. A kernel belongs to the operator that launched it, which has the same
    external id or is open at the launch.
    """
    where, divided = Innermost(trace.ranges), trace.divided
    made: dict[int, str] = {}
    owners: dict[int, tuple[str, bool]] = {}
    by_id: dict[int, Event] = {}
    found: list[Work] = []
    phase_at = _Phases(trace)
    for op in trace.operators:
        root, backward = op, False
        while root is not None:
            if root.name.startswith(BACKWARD):
                backward = True
                break
            if root.parent is None:
                break
            root = root.parent
        place = label(where(op.begin, op.thread), divided)
        number = op.args.get("Sequence number", -1)
        if backward:
            place = made.get(root.args.get("Sequence number", -1), "gradients added up")
        elif number >= 0:
            made[number] = place
        owners[id(op)] = place, backward
        if (identity := op.args.get("External id")) is not None:
            by_id[identity] = op
        if not trace.on_gpu and op.own > 0:
            phase = phase_at(op.begin)
            found.append(Work(op.name, op.begin, op.own, op.begin, phase, place, backward))
    if not trace.on_gpu:
        return found
    operator = Innermost(trace.operators)
    for kernel in trace.kernels:
        launch = trace.launches.get(kernel.args.get("correlation", -1))
        owner = by_id.get(kernel.args.get("External id", -1))
        if owner is None and launch is not None:
            owner = operator(launch.begin, launch.thread)
        caller = launch or owner
        place, backward = "", False
        if owner is not None:
            place, backward = owners[id(owner)]
        elif launch is not None:
            place = label(where(launch.begin, launch.thread), divided)
        at = kernel.begin if caller is None else caller.begin
        parts = kernel.name, kernel.begin, kernel.seconds
        found.append(Work(*parts, at, phase_at(at), place, backward))
    return found


class _Phases:
    """Finds the phase at a moment of the CPU."""

    def __init__(self, trace: Trace) -> None:
        self._phases = [r for r in trace.ranges if r.name in PHASES]
        self._begins = [phase.begin for phase in self._phases]

    def __call__(self, at: float) -> str:
        index = bisect.bisect_right(self._begins, at) - 1
        return self._phases[index].name if index >= 0 and at < self._phases[index].end else ""
