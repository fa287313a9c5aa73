"""All-reduce by size and number of processes: gloo on the CPU, NCCL on CUDA.

Each case warms up five times; a time is the slowest process's, the median of the rounds. The bus
bandwidth is `2 (n - 1) / n` times bytes a second, which does not depend on n for a perfect ring.

    python benchmarks/communication.py [--device cuda] [--plot FILE.png]
"""

import argparse
import socket
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.multiprocessing.spawn import spawn

from lmlab.accounting.fit import available_memory
from lmlab.figures import COLORS, picture
from lmlab.text import markdown_table

MEGABYTES = (1, 10, 100, 1000)
PROCESSES = (2, 4, 6)
WARMUPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--processes", type=int, nargs="+", default=PROCESSES, metavar="N")
    parser.add_argument("--megabytes", type=int, nargs="+", default=MEGABYTES, metavar="MB")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device here")
    found: dict[int, list[tuple[int, float]]] = {}
    rows = []
    for processes in arguments.processes:
        if arguments.device == "cuda" and processes > torch.cuda.device_count():
            continue
        for megabytes in arguments.megabytes:
            # Every process has the tensor, and gloo a copy of it.
            room = available_memory(torch.device("cpu"))
            if room is not None and 3 * processes * megabytes * 1e6 > room:
                continue
            times = measure(arguments.device, processes, megabytes, arguments.rounds)
            seconds = statistics.median(times)
            bus = 2 * (processes - 1) / processes * megabytes * 1e6 / seconds
            found.setdefault(processes, []).append((megabytes, bus))
            spread = statistics.stdev(times) if len(times) > 1 else 0.0
            row = f"{processes}", f"{megabytes:,}", f"{1e3 * seconds:,.2f} ± {1e3 * spread:,.2f}"
            rows.append((*row, f"{bus / 1e9:,.2f}"))
    print(markdown_table(("processes", "MB", "ms", "bus bandwidth (GB/s)"), rows, text=0))
    if arguments.plot:
        with picture(arguments.plot, f"All-reduce on {arguments.device}") as (panel,):
            for color, (processes, points) in zip(COLORS, found.items(), strict=False):
                xs, ys = zip(*points, strict=True)
                speeds = [y / 1e9 for y in ys]
                panel.plot(xs, speeds, marker="o", color=color, label=f"{processes} processes")
            panel.set(xscale="log", xlabel="MB", ylabel="bus bandwidth (GB/s)")
            panel.set_ylim(bottom=0)
            panel.legend(edgecolor="none")


def measure(device: str, processes: int, megabytes: int, rounds: int) -> list[float]:
    """Return the seconds of each round, the slowest process's."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{found.getsockname()[1]}"
    answers = mp.get_context("spawn").SimpleQueue()
    spawn(_reduce, (device, processes, megabytes, rounds, address, answers), nprocs=processes)
    times: list[float] = answers.get()
    return times


def _reduce(
    rank: int, device: str, size: int, megabytes: int, rounds: int, address: str, answers: Any
) -> None:
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(rank)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=size)
    data = torch.ones(megabytes * 1_000_000 // 4, device=device)
    own = []
    for _ in range(WARMUPS + rounds):
        dist.barrier()
        started = time.perf_counter()
        dist.all_reduce(data)
        if device == "cuda":
            torch.cuda.synchronize()
        own.append(time.perf_counter() - started)
    collected: list[Any] = [None] * size
    dist.all_gather_object(collected, own[WARMUPS:])
    if rank == 0:
        answers.put([max(each) for each in zip(*collected, strict=True)])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
