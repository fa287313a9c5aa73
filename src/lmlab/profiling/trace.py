"""A trace of torch's profiler, read: named ranges, operators, kernels, allocations."""

import bisect
import gzip
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmlab.errors import UserError

PHASES = ("forward", "backward", "optimizer")
STEP = "step"
BLOCK = "block "
"""Begins the names of the blocks' ranges."""
KERNELS = ("kernel", "gpu_memcpy", "gpu_memset")
LAUNCHES = ("cuda_runtime", "cuda_driver")
BACKWARD = "autograd::engine::evaluate_function"
COMMUNICATION = re.compile(r"nccl|gloo|c10d", re.IGNORECASE)
MICROSECONDS = 1e-6
RESOLUTION = 1e-9
"""Seconds below which events that follow each other overlap by rounding alone."""
NOT_A_TRACE = (
    *(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError),
    *(gzip.BadGzipFile, EOFError, zlib.error),
)
"""Errors that content which is no trace leads to."""
CUDA = 1
"""Number of CUDA among torch's types of devices."""


@dataclass
class Event:
    """Something that took time, on one thread or stream; seconds from the trace's beginning."""

    name: str
    begin: float
    end: float
    thread: str
    args: dict[str, Any]
    children: float = 0.0
    """Seconds in events inside of it."""
    parent: "Event | None" = None

    @property
    def seconds(self) -> float:
        """From the beginning to the end."""
        return self.end - self.begin

    @property
    def span(self) -> tuple[float, float]:
        """Begin and end."""
        return self.begin, self.end

    @property
    def around(self) -> "Iterator[Event]":
        """The events that it is inside of, the innermost first."""
        outer = self.parent
        while outer is not None:
            yield outer
            outer = outer.parent

    @property
    def own(self) -> float:
        """Seconds outside of the events inside of it."""
        return max(0.0, self.seconds - self.children)


@dataclass(frozen=True)
class Allocation:
    """Memory allocated (bytes above 0) or freed (below) at a moment."""

    at: float
    bytes: int
    address: int
    thread: str
    on_gpu: bool = False


@dataclass
class Trace:
    """The events of a trace, each list in the order of time."""

    ranges: list[Event] = field(default_factory=list)
    operators: list[Event] = field(default_factory=list)
    kernels: list[Event] = field(default_factory=list)
    """On the GPU: kernels and copies; none on a CPU."""
    launches: dict[int, Event] = field(default_factory=dict)
    """Calls of the CPU that launched kernels, by correlation id."""
    allocations: list[Allocation] = field(default_factory=list)

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU did the work."""
        return bool(self.kernels)

    def steps(self) -> list[Event]:
        """Return the outermost training steps; without their ranges all of the trace as one."""
        steps = [r for r in self.ranges if is_step(r) and not any(map(is_step, r.around))]
        if steps:
            return steps
        events = [*self.ranges, *self.operators, *self.kernels, *self.launches.values()]
        begin = min((e.begin for e in events), default=0.0)
        end = max((e.end for e in events), default=0.0)
        return [Event(STEP, begin, end, "", {})]

    @property
    def divided(self) -> bool:
        """Whether parts of the model have ranges of their own."""
        return any(r.name.startswith(BLOCK) for r in self.ranges)


def read_trace(path: Path) -> Trace:
    """Return a trace.json or trace.json.gz of one process; UserError for another file."""
    try:
        content = path.read_bytes()
        text = gzip.decompress(content) if path.suffix == ".gz" else content
        trace = parse_trace(json.loads(text)["traceEvents"])
    except NOT_A_TRACE as error:
        problem = f"no {error}" if isinstance(error, KeyError) else f"{error}"
        raise UserError(f"{path} is not a trace of torch's profiler ({problem})") from error
    processes = {e.thread.partition("/")[0] for e in (*trace.ranges, *trace.operators)}
    if len(processes) > 1:
        raise UserError(
            f"{path} has operators of {len(processes)} processes ({', '.join(sorted(processes))}); "
            "give the trace of one process"
        )
    worked = any(e.seconds for e in (*trace.operators, *trace.kernels))
    if not worked or sum(step.seconds for step in trace.steps()) <= 0:
        raise UserError(f"{path} has no operators that took time: was anything profiled?")
    return trace


def parse_trace(events: Iterable[dict[str, Any]]) -> Trace:
    """Return the events of a Chrome trace, with operators and ranges nested in each other."""
    trace = Trace()
    timed = [e for e in events if e.get("ph") == "X" or e.get("name") == "[memory]"]
    zero = min((_time(e["ts"]) for e in timed), default=0.0)
    for e in timed:
        begin = (_time(e["ts"]) - zero) * MICROSECONDS
        thread, args, kind = f"{e['pid']}/{e['tid']}", _arguments(e), e.get("cat")
        if e["name"] == "[memory]":
            size, address = int(args["Bytes"]), int(args["Addr"])
            on_gpu = args.get("Device Type", 0) == CUDA
            trace.allocations.append(Allocation(begin, size, address, thread, on_gpu))
            continue
        duration = _time(e["dur"], least=0) * MICROSECONDS
        event = Event(str(e["name"]), begin, begin + duration, thread, args)
        if kind == "cpu_op":
            trace.operators.append(event)
        elif kind == "user_annotation" and not event.name.startswith("Optimizer."):
            trace.ranges.append(event)
        elif kind in KERNELS:
            trace.kernels.append(event)
        elif kind in LAUNCHES and "correlation" in args:
            trace.launches[args["correlation"]] = event
    for several in (trace.ranges, trace.operators, trace.kernels):
        several.sort(key=lambda e: (e.begin, -e.end))
    trace.allocations.sort(key=lambda a: a.at)
    if any(a.on_gpu for a in trace.allocations):  # the CPU's memory is not what runs out
        trace.allocations = [a for a in trace.allocations if a.on_gpu]
    _nest(trace.ranges)
    _nest(trace.operators)
    return trace


def _time(microseconds: Any, least: float = -math.inf) -> float:
    """Return a moment or a duration; ValueError unless it is one."""
    value = float(microseconds)
    if not (math.isfinite(value) and value >= least):
        raise ValueError(f"{microseconds!r} is not a time")
    return value


def _arguments(event: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an event; ValueError unless numbers that refer to others are so."""
    args: dict[str, Any] = event.get("args") or {}
    for name in ("Sequence number", "External id", "correlation"):
        if not isinstance(args.get(name, 0), int):
            raise ValueError(f"{name!r} is {args[name]!r}")
    return args


def _nest(events: list[Event]) -> None:
    """Set the parent of each event on its thread, and what children take of it."""
    open_events: dict[str, list[Event]] = {}
    for event in events:
        stack = open_events.setdefault(event.thread, [])
        while stack and stack[-1].end - event.begin < RESOLUTION:
            stack.pop()
        if stack:
            event.parent = stack[-1]
            stack[-1].children += min(event.end, stack[-1].end) - event.begin
        stack.append(event)


class Innermost:
    """Finds the innermost of nested events at a moment on a thread."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._by_thread: dict[str, list[Event]] = {}
        for event in events:
            self._by_thread.setdefault(event.thread, []).append(event)
        self._begins = {t: [e.begin for e in events] for t, events in self._by_thread.items()}

    def __call__(self, at: float, thread: str) -> Event | None:
        """Return the event; None when none is open."""
        begins = self._begins.get(thread)
        if begins is None:
            return None
        index = bisect.bisect_right(begins, at) - 1
        event = self._by_thread[thread][index] if index >= 0 else None
        while event is not None and event.end <= at:
            event = event.parent
        return event


def is_step(event: Event) -> bool:
    """Return whether a range is a training step, of `lmlab profile` or of torch's profiler."""
    return event.name == STEP or event.name.startswith("ProfilerStep#")


def label(event: Event | None, divided: bool) -> str:
    """Return the name of a range in tables.

    What is in a block, but in none of its parts, are residual sums. What is in the forward pass,
    but in no module, is the loss where the trace is `divided` into modules, else all of the model.
    """
    if event is None or is_step(event):
        return "between the phases"
    if event.name.startswith(BLOCK):
        return "residual sums"
    if event.name == "forward":
        return "loss" if divided else "model and loss"
    return event.name
