"""Traces made by hand: attribution, idle time, communication, memory."""

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmlab.errors import UserError
from lmlab.profiling.analysis import analyse
from lmlab.profiling.memory import memory_of
from lmlab.profiling.spans import common, covered, merged, without
from lmlab.profiling.trace import parse_trace, read_trace
from lmlab.profiling.work import work

BACKWARD = "autograd::engine::evaluate_function: MmBackward0"


def event(name: str, ts: float, dur: float, cat: str = "cpu_op", tid: int = 1, **args: Any) -> Any:
    shown = {key.replace("_", " "): value for key, value in args.items()}
    return {
        "ph": "X", "cat": cat, "name": name, "pid": 1, "tid": tid, "ts": ts, "dur": dur,
        "args": shown,
    }  # fmt: skip


def span(name: str, ts: float, dur: float) -> Any:
    return event(name, ts, dur, "user_annotation")


def memory(ts: float, size: int, address: int, device: int = 0) -> Any:
    args = {"Bytes": size, "Addr": address, "Device Type": device}
    return {"ph": "i", "name": "[memory]", "pid": 1, "tid": 1, "ts": ts, "args": args}


STEP = [
    span("step", 0, 1000),
    span("forward", 0, 400),
    span("block 0", 10, 300),
    span("attention", 20, 100),
    event("aten::linear", 30, 80, Sequence_number=7),
    event("aten::mm", 40, 60, Sequence_number=7),
    event("aten::nll", 350, 40, Sequence_number=8),
    span("backward", 400, 500),
    event(BACKWARD, 410, 300, Sequence_number=7),
    event("aten::mm", 420, 200),
    event("Optimizer.step", 900, 100, "user_annotation"),
    span("optimizer", 900, 100),
    event("aten::add_", 910, 50),
]


def test_each_operator_counts_once_in_its_range() -> None:
    trace = parse_trace(STEP)
    found = {(w.name, w.where, w.backward, w.phase): round(w.seconds * 1e6) for w in work(trace)}
    assert found == {
        ("aten::linear", "attention", False, "forward"): 20,
        ("aten::mm", "attention", False, "forward"): 60,
        ("aten::nll", "loss", False, "forward"): 40,
        (BACKWARD, "attention", True, "backward"): 100,
        ("aten::mm", "attention", True, "backward"): 200,
        ("aten::add_", "optimizer", False, "optimizer"): 50,
    }


def test_the_analysis_adds_up() -> None:
    a = analyse(parse_trace(STEP))
    assert a.seconds == pytest.approx(1e-3)
    assert a.busy == pytest.approx((80 + 40 + 300 + 50) / 1000)
    assert [(row.name, round(row.share, 3)) for row in a.phases] == [
        ("forward", 0.4),
        ("backward", 0.5),
        ("optimizer", 0.1),
    ]
    attention = a.ranges[0]
    assert (attention.name, attention.calls) == ("attention", 4)
    assert attention.seconds == pytest.approx(380e-6)
    assert attention.backward == pytest.approx(300e-6)
    assert sum(row.share for row in a.ranges) == pytest.approx(1)
    assert a.operators[0].name == "aten::mm"
    assert [(bar.name, bar.depth) for bar in a.bars][:3] == [
        ("forward", 0),
        ("block 0", 1),
        ("attention", 2),
    ]


def test_on_a_gpu_kernels_are_the_work_and_gaps_are_idle() -> None:
    launches = [
        event("aten::mm", 40, 10, Sequence_number=7, External_id=1),
        event(BACKWARD, 420, 30, Sequence_number=7, External_id=2),
        event("nccl:all_reduce", 500, 10, External_id=4),
    ]
    kernels = [
        event("gemm", 100, 200, "kernel", 7, External_id=1),
        event("gemm_backward", 500, 300, "kernel", 7, External_id=2),
        event("ncclDevKernel_AllReduce", 700, 200, "kernel", 8, External_id=4),
    ]
    ranges = [e for e in STEP if e["cat"] == "user_annotation"]
    trace = parse_trace([*ranges, *launches, *kernels])
    a = analyse(trace)
    assert a.on_gpu
    assert a.busy == pytest.approx(0.6)
    assert a.communication == pytest.approx(200e-6)
    assert a.hidden == pytest.approx(100e-6)
    where = {row.name: (row.seconds, row.backward) for row in a.ranges}
    assert where["attention"] == (pytest.approx(500e-6), pytest.approx(300e-6))
    phases = {w.name: w.phase for w in work(trace)}
    assert phases["gemm_backward"] == "backward"


def launch(ts: float, correlation: int, tid: int = 1) -> Any:
    return event("cudaLaunchKernel", ts, 5, "cuda_runtime", tid, correlation=correlation)


def kernel(name: str, ts: float, dur: float, correlation: int, stream: int = 7) -> Any:
    return event(name, ts, dur, "kernel", stream, correlation=correlation)


AHEAD = [
    span("ProfilerStep#3", 0, 300),
    span("forward", 0, 100),
    event("aten::mm", 10, 40, Sequence_number=7),
    launch(20, 1),
    span("backward", 100, 150),
    event(BACKWARD, 110, 100, tid=2, Sequence_number=7),
    launch(120, 2, tid=2),
    launch(150, 3, tid=2),
    span("optimizer", 250, 50),
    event("aten::add_", 255, 40),
    launch(260, 4),
    span("ProfilerStep#4", 300, 100),
    span("forward", 300, 100),
    event("aten::mm", 310, 40, Sequence_number=8),
    launch(320, 5),
    kernel("gemm", 50, 200, 1),
    kernel("gemm_backward", 250, 400, 2),
    kernel("ncclDevKernel_AllReduce", 600, 100, 3, stream=8),
    kernel("adam", 700, 100, 4),
    kernel("gemm", 800, 300, 5),
]
"""Two steps of 300 and 100 us on the CPU; the GPU ends the first at 800, the second at 1,100."""


def test_on_a_gpu_phases_last_as_long_as_their_kernels() -> None:
    a = analyse(parse_trace(AHEAD))
    phases = {row.name: (row.seconds * 2e6, row.share) for row in a.phases}
    assert phases == {
        "forward": (pytest.approx(200 + 300), pytest.approx(500 / 1100)),
        # 250 to 650 and 600 to 700, on two streams
        "backward": (pytest.approx(450), pytest.approx(450 / 1100)),
        "optimizer": (pytest.approx(100), pytest.approx(100 / 1100)),
    }
    assert [row.calls for row in a.phases] == [1, 0.5, 0.5]


def test_on_a_gpu_a_step_lasts_until_its_kernels_have_run() -> None:
    a = analyse(parse_trace(AHEAD))
    assert a.seconds == pytest.approx((800 + 300) / 2 * 1e-6)
    assert a.deviation == pytest.approx((800 - 300) / 2 * 1e-6)
    assert a.busy == pytest.approx((1100 - 50) / 1100)
    assert sum(row.seconds for row in a.operators) * 2e6 == pytest.approx(1100)
    assert (a.communication * 2e6, a.hidden * 2e6) == (pytest.approx(100), pytest.approx(50))


def test_kernels_without_an_external_id_belong_to_the_operator_of_their_launch() -> None:
    found = {w.name: (w.where, w.backward, w.phase) for w in work(parse_trace(AHEAD))}
    assert found["gemm_backward"] == ("model and loss", True, "backward")
    unknown = [kernel("gemm", 50, 200, 99), event("aten::mm", 40, 10)]
    assert {w.name: (w.where, w.phase) for w in work(parse_trace(unknown))} == {"gemm": ("", "")}


def test_on_a_cpu_communication_is_hidden_by_other_threads_alone() -> None:
    """Not by the operators that it is called from, nor by those that it calls."""
    blocking = [
        span("step", 0, 1000),
        event(BACKWARD, 100, 800),
        event("c10d::allreduce_", 200, 400),
        event("aten::copy_", 300, 50),
    ]
    a = analyse(parse_trace(blocking))
    assert a.communication * 1e6 == pytest.approx(400)
    assert a.hidden == 0
    beside = [
        event("gloo:all_reduce", 250, 450, "user_annotation", tid=2),
        event("gloo:all_reduce", 1500, 100, "user_annotation", tid=2),  # after the step
    ]
    a = analyse(parse_trace([*blocking, *beside]))
    assert a.communication * 1e6 == pytest.approx(500)  # 200 to 700
    assert a.hidden * 1e6 == pytest.approx(100)  # from 600 on the operator computes again


def test_kinds_of_memory_by_lifetime() -> None:
    moves = [
        memory(50, 100, 1),  # used in the backward pass
        memory(60, 30, 2),
        memory(70, -30, 2),  # gone before the forward pass ends
        memory(500, 40, 3),  # stays after the backward pass
        memory(510, 7, 4),
        memory(520, -7, 4),
        memory(600, -100, 1),
        memory(700, -5, 99),  # was there before the step
        memory(920, 3, 5),
        memory(930, -3, 5),
    ]
    trace = parse_trace([*STEP, *moves])
    found = memory_of(trace, trace.steps()[0])
    assert found is not None
    assert found.peak == 100 + 40 + 7
    assert found.peak_at == pytest.approx(510e-6)
    assert set(found.holders) == {
        ("activations", "attention", 100),
        ("gradients", "backward", 40),
        ("temporary", "backward", 7),
    }
    assert found.largest[0] == ("aten::mm", "attention", 100)
    assert [found.series[kind][-1] for kind in ("gradients", "activations", "temporary")] == [
        40,
        0,
        0,
    ]


def test_on_a_gpu_its_memory_counts() -> None:
    trace = parse_trace([*STEP, memory(50, 1000, 1), memory(55, 10, 2, device=1)])
    found = memory_of(trace, trace.steps()[0])
    assert found is not None
    assert found.peak == 10


def test_a_trace_without_our_ranges_is_one_step() -> None:
    a = analyse(parse_trace([event("aten::mm", 5, 10), event("aten::mm", 25, 10)]))
    assert (a.steps, a.phases, a.memory) == (1, [], None)
    assert a.busy == pytest.approx(20 / 30)


def test_a_step_inside_a_step_is_not_another_one() -> None:
    inner = [span("step", 10, 80), event("aten::mm", 20, 30)]
    a = analyse(parse_trace([span("ProfilerStep#3", 0, 100), *inner]))
    assert (a.steps, a.seconds) == (1, pytest.approx(1e-4))
    assert a.busy == pytest.approx(0.3)


ODD = [
    event("aten::mm", 0, -5),
    event("aten::mm", float("nan"), 5),
    event("aten::mm", 0, 10**400),
    event("aten::mm", 0, 5) | {"args": [1]},
    event("aten::mm", 0, 5, Sequence_number="x"),
    event("aten::mm", 0, 5, External_id=[1]),
    event("cudaLaunchKernel", 0, 5, "cuda_runtime", correlation="x"),
]


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", "{}", '{"traceEvents": [{"ph": "X"}]}', "3", "[" * 100_000),
        *(json.dumps({"traceEvents": [odd]}) for odd in ODD),
    ],
    ids=lambda content: content[:60],
)
def test_another_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"trace\.json is not a trace"):
        read_trace(path)


def test_an_event_without_a_duration_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    odd = event("aten::mm", 0, 5)
    del odd["dur"]
    path.write_text(json.dumps({"traceEvents": [odd]}))
    with pytest.raises(UserError, match=r"is not a trace of torch's profiler \(no 'dur'\)"):
        read_trace(path)


def test_a_trace_of_two_processes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    both = [*STEP, *(each | {"pid": 2} for each in STEP)]
    path.write_text(json.dumps({"traceEvents": both}))
    with pytest.raises(UserError, match=r"2 processes \(1, 2\); give the trace of one process"):
        read_trace(path)


@pytest.mark.parametrize("events", [[], [event("aten::mm", 5, 0)], [span("step", 0, 5)]])
def test_an_empty_trace_is_refused(events: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": events}))
    with pytest.raises(UserError, match=r"trace\.json has no operators that took time"):
        read_trace(path)


def test_a_compressed_trace_with_odd_names_is_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.json.gz"
    events = [event("aten::mm", 0, 5) | {"name": 3, "args": None}]
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": events}).encode()))
    assert [op.name for op in read_trace(path).operators] == ["3"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="is not a trace"):
        read_trace(path)


def test_a_trace_without_modules_does_not_call_them_the_loss() -> None:
    modules = ("block 0", "attention")
    undivided = parse_trace([e for e in STEP if e["name"] not in modules])
    assert {w.where for w in work(undivided)} == {"model and loss", "optimizer"}
    assert not analyse(undivided).divided
    assert analyse(parse_trace(STEP)).divided


SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda s: (s[0], sum(s))))


@given(SPANS, SPANS)
def test_intervals_are_sets_of_moments(one: list[Any], other: list[Any]) -> None:
    def moments(spans: list[Any]) -> set[int]:
        return {at for begin, end in spans for at in range(begin, end)}

    assert covered(one) == len(moments(one))
    assert moments(common(one, other)) == moments(one) & moments(other)
    assert moments(without(one, other)) == moments(one) - moments(other)
    union = list(merged(one))
    assert all(a[1] < b[0] for a, b in itertools.pairwise(union))
