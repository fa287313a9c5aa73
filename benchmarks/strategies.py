"""Milliseconds of a step and the share spent communicating, by strategy and by size of buckets.

A step of one process with the same part of the batch is the compute; what a step takes longer is
communication that nothing hides. For buckets it is beside the model `s / (n w) + n o`, whose
bandwidth w and cost of a call o are fitted to the smallest and the largest number of buckets.
With `--link` nothing is sent: messages take the time of a network with one message at a time, which
needs no processor, and each call takes `--call` of the compute. Then w and o are known.

    python benchmarks/strategies.py [--processes 2] [--plot FILE.png] [KEY=VALUE ...]
    python benchmarks/strategies.py --link 0.2 --call 1
"""

import argparse
import os
import socket
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from lmlab.figures import BLUE, INK, ORANGE, picture
from lmlab.hydra_app import compose
from lmlab.model import build
from lmlab.optim import build_optimizer
from lmlab.parallel import build_strategy
from lmlab.parallel.data_parallel import ManualDDP, fill_buckets
from lmlab.planning.links import best_buckets, bucket_overhead
from lmlab.text import markdown_table
from lmlab.training.objective import NextToken

STRATEGIES = ("ddp", "ddp_naive", "ddp_flat", "ddp_overlapped", "ddp_bucketed", "zero1", "fsdp")
BUCKETS = (1, 3, 10, 30, 100, 1000)
OURS = ("ddp_naive", "ddp_flat", "ddp_overlapped", "ddp_bucketed")
SHAPE = ("model=small", "model.d_model=256", "model.num_layers=6", "model.num_heads=8",
         "model.d_ff=1024", "model.context_length=128", "optimizer=adamw")  # fmt: skip
VOCABULARY, WARMUPS = 4096, 2
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    parser.add_argument("--link", type=float, metavar="GB/S", help="delay messages")
    parser.add_argument("--call", type=float, default=1.0, metavar="MS", help="with --link")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    given = parser.parse_args()
    shape = [*SHAPE, *given.overrides]
    link = None if given.link is None else (1e9 * given.link, given.call / 1e3)

    def seconds(*overrides: str, processes: int = given.processes) -> float:
        return measure([*shape, *overrides], processes, given.rounds, link)

    alone = seconds("parallel=none", processes=1)
    rows = [("one process", f"{1e3 * alone:,.1f}", "")]
    kinds = STRATEGIES if link is None else OURS
    steps = {kind: seconds(f"parallel={kind}") for kind in kinds}
    for kind, took in steps.items():
        rows.append((kind, f"{1e3 * took:,.1f}", f"{max(0.0, 1 - alone / took):.0%}"))
    print(markdown_table(("strategy", "ms a step", "exposed communication"), rows))

    model = build(compose(*shape).model, VOCABULARY, device="meta")
    size = 4 * sum(p.numel() for p in model.parameters())
    over = {}
    for bucket in BUCKETS:
        count = len(list(fill_buckets(reversed(list(model.parameters())), bucket * MIB)))
        took = seconds("parallel=ddp_bucketed", f"parallel.bucket_size_mb={bucket}")
        over[bucket] = (count, took - alone)
    bandwidth, start = link or fitted(size, over)
    cells = [
        (f"{bucket:,}", f"{n}", f"{1e3 * each:,.1f}",
         f"{1e3 * bucket_overhead(size, bandwidth, start, n):,.1f}")
        for bucket, (n, each) in over.items()
    ]  # fmt: skip
    best = best_buckets(size, bandwidth, start)
    how = "fitted" if link is None else "given"
    print(f"\n{size / 1e6:,.0f} MB of gradients; {how}: {bandwidth / 1e9:.2f} GB/s and")
    print(f"{1e3 * start:.2f} ms a call, best {best:.1f} buckets\n")
    print(markdown_table(("bucket (MiB)", "buckets", "overhead (ms)", "model"), cells, text=0))
    if given.plot:
        overheads = dict(over.values())
        model_of = partial(bucket_overhead, size, bandwidth, start)
        draw(given.plot, given.processes, alone, steps, overheads, model_of)


def fitted(size: int, over: dict[int, tuple[int, float]]) -> tuple[float, float]:
    """Return bandwidth and cost of a call with which the model has the overhead at both ends."""
    (most, slow), (least, last) = over[BUCKETS[0]], over[BUCKETS[-1]]
    # s/(n w) + n o twice: two linear equations.
    call = max(1e-7, (slow * most - last * least) / (most**2 - least**2))
    return size / max(1e-9, (last - least * call) * least), call


class Link:
    """A network that sends nothing: messages arrive one after the other at a bandwidth."""

    def __init__(self, bandwidth: float, call: float) -> None:
        self.bandwidth, self.call = bandwidth, call
        self.free = 0.0

    def __call__(self, tensor: Tensor) -> "Message":
        """Pass the time of a call; the tensor arrives later."""
        time.sleep(self.call)
        self.free = max(self.free, time.perf_counter()) + tensor.nbytes / self.bandwidth
        return Message(self.free)


class Message:
    """A tensor on its way, until a time."""

    def __init__(self, arrives: float) -> None:
        self.arrives = arrives

    def wait(self) -> None:
        """Wait until it has arrived."""
        time.sleep(max(0.0, self.arrives - time.perf_counter()))


def draw(
    path: Path,
    processes: int,
    alone: float,
    steps: dict[str, float],
    overheads: dict[int, float],
    model_of: Callable[[int], float],
) -> None:
    """Draw the time of a step by strategy, and the overhead by the number of buckets."""
    title = f"A step of {processes} processes"
    with picture(path, title, (11.0, 4.2), panels=2) as (bars, buckets):
        names = list(steps)[::-1]
        bars.barh(names, [1e3 * alone] * len(names), color=BLUE, label="one process")
        rest = [1e3 * max(0.0, steps[name] - alone) for name in names]
        bars.barh(names, rest, left=1e3 * alone, color=ORANGE, label="exposed communication")
        bars.set(xlabel="a step (ms)")
        buckets.plot(
            list(overheads), [1e3 * each for each in overheads.values()],
            "o", color=ORANGE, label="measured",
        )  # fmt: skip
        counts = range(1, max(overheads) + 1)
        modelled = [1e3 * model_of(n) for n in counts]
        buckets.plot(list(counts), modelled, color=INK, label="s / (n w) + n o")
        buckets.set(xscale="log", xlabel="buckets", ylabel="overhead of a step (ms)")
        buckets.set_ylim(bottom=0)
        bars.legend(edgecolor="none", loc="upper right")
        bars.set_xlim(right=1.35e3 * max(steps.values()))
        buckets.legend(edgecolor="none", loc="lower right")


def measure(
    overrides: list[str], processes: int, rounds: int, link: tuple[float, float] | None
) -> float:
    """Return the median seconds of a step, of the slowest process each."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    answers = mp.get_context("spawn").SimpleQueue()
    spawn(_train, (overrides, processes, rounds, port, answers, link), nprocs=processes)
    return statistics.median(answers.get())


def _train(
    rank: int,
    overrides: list[str],
    size: int,
    rounds: int,
    port: str,
    answers: Any,
    link: tuple[float, float] | None,
) -> None:
    os.environ["LOCAL_WORLD_SIZE"] = str(size)
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size
    )
    config = compose(*overrides)
    strategy = build_strategy(config.parallel, size, torch.device("cpu"), "fp32")
    torch.manual_seed(0)
    model = build(config.model, VOCABULARY)
    if link is not None and isinstance(strategy, ManualDDP):
        variant: Any = strategy.variant
        strategy = ManualDDP(partial(variant, communicate=Link(*link)))
    wrapped = strategy.wrap(NextToken(model), model)
    optimizer = build_optimizer(config.optimizer, model, strategy.optimizer)
    ids = torch.randint(0, VOCABULARY, (2, model.context_length))
    own = []
    for _ in range(WARMUPS + rounds):
        dist.barrier()
        started = time.perf_counter()
        loss, _ = wrapped(ids, ids)
        loss.backward()
        strategy.finish_gradients()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        own.append(time.perf_counter() - started)
    collected: list[Any] = [None] * size
    dist.all_gather_object(collected, own[WARMUPS:])
    if rank == 0:
        answers.put([max(each) for each in zip(*collected, strict=True)])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
