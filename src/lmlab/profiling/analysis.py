"""What a trace says: time by phase, range and operator, idle time, communication, memory."""

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, pstdev

from lmlab.profiling.memory import Memory, memory_of
from lmlab.profiling.spans import Span, common, covered, without
from lmlab.profiling.trace import COMMUNICATION, PHASES, Event, Trace
from lmlab.profiling.work import Work, work


@dataclass(frozen=True)
class Row:
    """Time of one phase, range or operator; seconds of a step, mean over the steps."""

    name: str
    calls: float
    """Parts of work in a step."""
    seconds: float
    share: float
    """Of the time that the device was busy."""
    backward: float = 0.0
    """Those of the seconds that compute gradients."""


@dataclass(frozen=True)
class Bar:
    """A named range of the drawn step; seconds from its beginning."""

    name: str
    begin: float
    seconds: float
    depth: int


@dataclass(frozen=True)
class Analysis:
    """A trace in numbers."""

    steps: int
    seconds: float
    """Of a step, mean; on a GPU up to the end of its kernels."""
    deviation: float
    """Standard deviation over the steps."""
    busy: float
    """Share of the steps in which a kernel ran, on a CPU an operator."""
    on_gpu: bool
    phases: list[Row]
    """Time of each phase, on a GPU that in which its kernels ran; shares are of the step."""
    ranges: list[Row]
    operators: list[Row]
    communication: float
    """Seconds of communication in a step."""
    hidden: float
    """Those of them during which something was computed too."""
    memory: Memory | None
    bars: list[Bar]
    divided: bool
    """Whether parts of the model have ranges of their own."""


def analyse(trace: Trace) -> Analysis:
    """Return what a trace says; UserError when it is empty."""
    steps = trace.steps()
    parts = [(w, _step_at(w.launched, steps)) for w in work(trace)]
    inside = [w for w, step in parts if step is not None]
    spans = [(s.begin, s.end) for s in steps]
    if trace.on_gpu:
        spans = _on_gpu(spans, [(w, step) for w, step in parts if step is not None])
    lasted = [end - begin for begin, end in spans]
    events = trace.kernels if trace.on_gpu else trace.operators
    talk = common(_communication(trace), spans)
    last = steps[-1]
    return Analysis(
        steps=len(steps),
        seconds=mean(lasted),
        deviation=pstdev(lasted),
        busy=covered(common([e.span for e in events], spans)) / sum(lasted),
        on_gpu=trace.on_gpu,
        phases=_phases(trace, steps, inside, sum(lasted)),
        ranges=_rows(inside, [w.where for w in inside], len(steps)),
        operators=_rows(inside, [w.name for w in inside], len(steps)),
        communication=covered(talk) / len(steps),
        hidden=covered(common(talk, _computation(events))) / len(steps),
        memory=memory_of(trace, last),
        bars=_bars(trace, last),
        divided=trace.divided,
    )


def _step_at(at: float, steps: Sequence[Event]) -> int | None:
    """Return the number of the step at a moment of the CPU; None: between steps."""
    index = bisect.bisect_right(steps, at, key=lambda step: step.begin) - 1
    return index if index >= 0 and at < steps[index].end else None


def _on_gpu(spans: Sequence[Span], launched: Sequence[tuple[Work, int]]) -> list[Span]:
    """Return when the GPU took the steps: each lasts until its kernels, launched ahead, have run.

    The next one begins there.
    """
    ends = [end for _, end in spans]
    for part, step in launched:
        ends[step] = max(ends[step], part.span[1])
    found: list[Span] = []
    for (begin, _), end in zip(spans, ends, strict=True):
        before = found[-1][1] if found else begin
        found.append((max(begin, before), max(end, before)))
    return found


def _communication(trace: Trace) -> list[Span]:
    """Return when there was communication; gloo's threads have ranges instead of operators."""
    events = trace.kernels if trace.on_gpu else [*trace.operators, *trace.ranges]
    return [e.span for e in events if COMMUNICATION.search(e.name)]


def _computation(events: Iterable[Event]) -> list[Span]:
    """Return when something else ran than communication.

    On the thread or stream of a communication that is neither what it is called from nor what it
    calls.
    """
    compute, talk = defaultdict[str, list[Span]](list), defaultdict[str, list[Span]](list)
    for event in events:
        kind = talk if COMMUNICATION.search(event.name) else compute
        kind[event.thread].append(event.span)
    return [span for t, spans in compute.items() for span in without(spans, talk.get(t, []))]


def _phases(
    trace: Trace, steps: Sequence[Event], inside: Sequence[Work], total: float
) -> list[Row]:
    rows = []
    for name in PHASES:
        found = [r for r in trace.ranges if r.name == name]
        found = [r for r in found if _step_at(r.begin, steps) is not None]
        if not found:
            continue
        seconds = sum(r.seconds for r in found)
        if trace.on_gpu:
            seconds = covered(w.span for w in inside if w.phase == name)
        rows.append(Row(name, len(found) / len(steps), seconds / len(steps), seconds / total))
    return rows


def _rows(parts: Sequence[Work], names: Sequence[str], steps: int) -> list[Row]:
    seconds: defaultdict[str, float] = defaultdict(float)
    backward: defaultdict[str, float] = defaultdict(float)
    calls: Counter[str] = Counter()
    for part, name in zip(parts, names, strict=True):
        seconds[name] += part.seconds
        calls[name] += 1
        backward[name] += part.seconds if part.backward else 0.0
    total = sum(seconds.values()) or 1.0
    return [
        Row(name or "no range", calls[name] / steps, s / steps, s / total, backward[name] / steps)
        for name, s in sorted(seconds.items(), key=lambda item: -item[1])
    ]


def _bars(trace: Trace, step: Event) -> list[Bar]:
    bars = []
    for each in trace.ranges:
        if not step.begin <= each.begin < step.end or each is step:
            continue
        depth, parent = 0, each.parent
        while parent is not None and parent is not step:
            depth, parent = depth + 1, parent.parent
        bars.append(Bar(each.name, each.begin - step.begin, each.seconds, depth))
    return bars
