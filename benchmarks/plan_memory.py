"""Memory that `lmlab plan` predicts beside torch's FSDPMemTracker, and beside real processes.

The tracker follows a step of the real model under FSDP on fake tensors, in a fake process group.
The processes train on the CPU over gloo; their peak is what the largest resident set grows by from
before the model is built, in the process where it grows most.

    python benchmarks/plan_memory.py
"""

import argparse
import contextlib
import ctypes
import multiprocessing
import os
import resource
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from lmlab.config import RunConfig
from lmlab.hydra_app import compose
from lmlab.model import build
from lmlab.model.attention.softmax import SoftmaxAttention
from lmlab.planning.layout import Layout
from lmlab.planning.layouts import Request
from lmlab.planning.layouts import layouts as layouts_of
from lmlab.planning.links import Cluster
from lmlab.planning.live import fake
from lmlab.planning.memory import State, peak_memory
from lmlab.planning.optimizer_state import OptimizerBytes, optimizer_bytes
from lmlab.planning.pieces import trace
from lmlab.planning.tensor import local_model
from lmlab.text import markdown_table
from lmlab.training.objective import NextToken

SHAPES = (
    (("model=small", "parallel=fsdp"), 8, 4),
    (("model=xl", "parallel=fsdp", "trainer.checkpoint_activations=true"), 64, 1),
    (("model=2_7b", "model.context_length=256", "parallel=fsdp"), 8, 1),
    (
        (
            "model=2_7b",
            "model.context_length=256",
            "parallel=fsdp",
            "parallel.reshard_after_forward=false",
        ),
        8,
        1,
    ),
)
"""Overrides, devices, micro-batch."""
VOCABULARY = 50257
SMALL = ("model=tiny", "model.d_model=512", "model.num_layers=24", "model.d_ff=2048")
REAL = (*SMALL, "model.context_length=32", "optimizer=adamw", "trainer.precision=fp32")
"""Weights and their state dominate: 102 M parameters, 32 tokens."""
REAL_VOCABULARY = 2048


def tracked(config: RunConfig, devices: int, sequences: int, vocab_size: int) -> float:
    """Return the peak of the second step by FSDPMemTracker, in bytes."""
    from lmlab.parallel.config import FSDPConfig
    from lmlab.parallel.fsdp import FSDP

    assert isinstance(config.parallel, FSDPConfig)
    with _fake_group(devices):
        mesh = init_device_mesh("cpu", (devices,))
        with FakeTensorMode():
            model = build(config.model, vocab_size, device="meta")
            fake(model)
            model.checkpoint_activations = config.trainer.checkpoint_activations
            for attention in (m for m in model.modules() if isinstance(m, SoftmaxAttention)):
                attention.backend = "sdpa"
            objective = NextToken(model)
            FSDP(config.parallel, mesh, "bf16").wrap(objective, model)
            optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
            ids = torch.zeros(sequences, model.context_length, dtype=torch.long)
            for _ in range(2):
                tracker = FSDPMemTracker(objective, optimizer)
                tracker.track_inputs((ids,))
                with tracker:
                    with torch.autocast("cpu", dtype=torch.bfloat16):
                        loss, _ = objective(ids, ids)
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
            (peak,) = tracker.get_tracker_snapshot("peak").values()
    return float(peak["Total"])


@contextlib.contextmanager
def _fake_group(devices: int) -> Iterator[None]:
    dist.init_process_group("fake", rank=0, world_size=devices, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def predicted(config: RunConfig, devices: int, sequences: int, vocab_size: int) -> float:
    """Return the peak that the accounting has for the same step, in bytes."""
    request = Request("bf16", "fsdp", config.parallel.model_dump(exclude={"kind"}))
    (layout,) = layouts_of(Cluster(devices, devices, 1e9, 1e9), request)
    pieces = trace(
        config.model,
        vocab_size,
        sequences,
        autocast=torch.bfloat16,
        in_blocks=torch.bfloat16 if layout.gathered == 2 else torch.float32,
    )
    state = State(
        OptimizerBytes(8 * pieces.total, 0, 0),
        accumulates=False,
        checkpointed=config.trainer.checkpoint_activations,
    )
    return peak_memory(layout, pieces, state).total


def _port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def layouts(devices: int) -> dict[str, tuple[tuple[str, ...], Layout]]:
    """Return what the processes run: overrides, and the layout of the plan."""
    return {
        "ddp": ((), Layout("ddp", devices)),
        "zero1": ((), Layout("zero1", devices, shard_optimizer=devices)),
        "fsdp": ((), Layout("fsdp", devices, shard=devices)),
        "hsdp, groups of 2": (
            ("parallel.shard_size=2",),
            Layout("hsdp", devices, shard=2),
        ),
        "tp, groups of 2": (
            ("parallel.size=2",),
            Layout("tp", devices, shard=devices // 2, tensor=2),
        ),
        "fsdp, Muon": (("optimizer=muon",), Layout("fsdp", devices, shard=devices)),
    }


def measured(overrides: tuple[str, ...], devices: int) -> dict[str, float]:
    """Return the growth of the largest process by moment, in bytes."""
    port = _port()
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [
        context.Process(target=_train, args=(overrides, rank, devices, port, answers))
        for rank in range(devices)
    ]
    for process in processes:
        process.start()
    found = [answers.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    return {moment: max(each[moment] for each in found) for moment in found[0]}


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _largest() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _train(overrides: tuple[str, ...], rank: int, devices: int, port: int, answers: Any) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["LOCAL_WORLD_SIZE"] = str(devices)
    torch.set_num_threads(1)
    # The C library gives freed blocks back at once, so that the resident set is what is in use.
    ctypes.CDLL(None).mallopt(-3, 2**16)  # M_MMAP_THRESHOLD
    dist.init_process_group("gloo", rank=rank, world_size=devices)
    from functools import partial

    from lmlab.optim import build_optimizer
    from lmlab.parallel import build_strategy

    config = compose(*REAL, *overrides)
    strategy = build_strategy(config.parallel, devices, torch.device("cpu"), "fp32")
    torch.manual_seed(0)
    # What torch loads and allocates once is there before the measurement.
    warm = torch.nn.Linear(64, 64)
    warm(torch.randn(8, 64)).sum().backward()
    dist.all_reduce(torch.zeros(1000))
    before = _resident()
    model = build(config.model, REAL_VOCABULARY, device="meta")
    objective = NextToken(model)
    if strategy.sharded:
        wrapped = strategy.wrap(objective, model)
        objective.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        model.position.reset_parameters()
    else:
        model.to_empty(device="cpu")
        model.reset_parameters()
        wrapped = strategy.wrap(objective, model)
    optimizer = build_optimizer(config.optimizer, model, partial(strategy.optimizer))
    found = {"after init": float(_resident() - before)}
    ids = torch.randint(0, REAL_VOCABULARY, (1, model.context_length))
    for step in range(3):
        loss, _ = wrapped(ids, ids)
        loss.backward()
        strategy.finish_gradients()
        if step == 2:
            found["before the step"] = float(_resident() - before)
        optimizer.step()
        if step == 2:
            found["after the step"] = float(_resident() - before)
        optimizer.zero_grad(set_to_none=True)
    found["peak"] = float(_largest() - before)
    answers.put(found)
    dist.destroy_process_group()


def accounted(overrides: tuple[str, ...], layout: Layout) -> float:
    """Return the peak of the accounting for what `measured` runs, in bytes."""
    config = compose(*REAL, *overrides)
    model = local_model(config.model, layout.tensor)
    pieces = trace(model, REAL_VOCABULARY, 1, autocast=None)
    own, whole = (
        optimizer_bytes(config.optimizer, build(each, REAL_VOCABULARY, device="meta"))
        for each in (model, config.model)
    )
    optimizer = replace(own, whole=whole.whole)
    state = State(optimizer, accumulates=False, checkpointed=False)
    return peak_memory(layout, pieces, state).total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=4)
    arguments = parser.parse_args()
    rows = []
    for overrides, devices, sequences in SHAPES:
        config = compose(*overrides)
        case = (config, devices, sequences, VOCABULARY)
        plan, tracker = predicted(*case), tracked(*case)
        shape = f"{' '.join(overrides)}, {devices} devices"
        rows.append((shape, f"{plan / 1e9:.3f}", f"{tracker / 1e9:.3f}", f"{plan / tracker:.3f}"))
    print(markdown_table(("step", "plan (GB)", "FSDPMemTracker (GB)", "ratio"), rows))
    print(f"\n{' '.join(REAL)}, {arguments.processes} processes on the CPU")
    processes: list[tuple[str, ...]] = []
    for kind, (more, layout) in layouts(arguments.processes).items():
        given = (f"parallel={layout.kind}", *more)
        plan, real = accounted(given, layout), measured(given, arguments.processes)
        cells = [
            f"{real[m] / 1e6:,.0f}" for m in ("after init", "before the step", "after the step")
        ]
        cells += [f"{real['peak'] / 1e6:,.0f}", f"{plan / 1e6:,.0f}", f"{plan / real['peak']:.2f}"]
        processes.append((kind, *cells))
    head = (
        "strategy",
        "after init (MB)",
        "before the step",
        "after the step",
        "peak",
        "plan",
        "ratio",
    )
    print(markdown_table(head, processes))


if __name__ == "__main__":
    main()
