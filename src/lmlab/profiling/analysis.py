"""What a trace says: time by phase, range and operator, idle time, communication, memory."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, pstdev

from lmlab.profiling.memory import Memory, memory_of
from lmlab.profiling.trace import (
    COMMUNICATION,
    PHASES,
    Event,
    Trace,
    Work,
    covered,
    overlap,
    work,
)


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
    """Of a step, mean."""
    deviation: float
    """Standard deviation over the steps."""
    busy: float
    """Share of the steps in which a kernel ran, on a CPU an operator."""
    on_gpu: bool
    phases: list[Row]
    """The wall time of each phase; shares are of the step."""
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
    spans = [(s.begin, s.end) for s in steps]
    inside = [w for w in work(trace) if any(b <= w.begin < e for b, e in spans)]
    events = trace.kernels if trace.on_gpu else trace.operators
    lasted = [s.seconds for s in steps]
    busy_spans = [(e.begin, e.end) for e in events]
    busy = sum(covered(busy_spans, begin, end) for begin, end in spans)
    talk = [(e.begin, e.end) for e in events if COMMUNICATION.search(e.name)]
    compute = [(e.begin, e.end) for e in events if not COMMUNICATION.search(e.name)]
    last = steps[-1]
    return Analysis(
        steps=len(steps),
        seconds=mean(lasted),
        deviation=pstdev(lasted),
        busy=busy / sum(lasted),
        on_gpu=trace.on_gpu,
        phases=_phases(trace, steps),
        ranges=_rows(inside, [w.where for w in inside], len(steps)),
        operators=_rows(inside, [w.name for w in inside], len(steps)),
        communication=covered(talk, spans[0][0], spans[-1][1]) / len(steps),
        hidden=overlap(talk, compute) / len(steps),
        memory=memory_of(trace, last),
        bars=_bars(trace, last),
        divided=trace.divided,
    )


def _phases(trace: Trace, steps: Sequence[Event]) -> list[Row]:
    total = sum(step.seconds for step in steps)
    rows = []
    for name in PHASES:
        found = [r for r in trace.ranges if r.name == name]
        found = [r for r in found if any(s.begin <= r.begin < s.end for s in steps)]
        seconds = sum(r.seconds for r in found)
        if found:
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
