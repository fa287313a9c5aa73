"""Our AdamW step beside torch's, at about 20 M parameters: both of our back ends and torch's fused.

    python benchmarks/optimizer.py [--device cuda] [--rounds 15]

All take turns in one process; the figures are medians, and ratios to torch's fused in each round.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lmlab.optim import AdamW
from lmlab.training.throughput import synchronize

SHAPES = [(10_000, 448)] * 2 + ([(448, 448)] * 4 + [(1216, 448)] * 3 + [(448,)] * 2) * 4 + [(448,)]
OPTIONS: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
Step = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)

    def parameters() -> list[nn.Parameter]:
        torch.manual_seed(0)
        made = [nn.Parameter(torch.randn(shape, device=device)) for shape in SHAPES]
        for parameter in made:
            parameter.grad = torch.randn_like(parameter)
        return made

    steps: dict[str, Step] = {
        "torch, fused": torch.optim.AdamW(parameters(), fused=True, **OPTIONS).step,
        "torch, foreach": torch.optim.AdamW(parameters(), foreach=True, **OPTIONS).step,
        "lmlab, auto": AdamW(parameters(), **OPTIONS).step,
        "lmlab, foreach": AdamW(parameters(), backend="foreach", **OPTIONS).step,
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.rounds + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            synchronize(device)
            times[name].append(time.perf_counter() - started)
    count = sum(torch.Size(shape).numel() for shape in SHAPES)
    print(f"{count / 1e6:.1f} M parameters, {device}, {torch.get_num_threads()} threads")
    print("| AdamW | ms a step | to torch's fused |\n| --- | ---: | ---: |")
    fused = times["torch, fused"][1:]
    for name, all_times in times.items():
        taken = all_times[1:]
        ratio = statistics.median(a / b for a, b in zip(taken, fused, strict=True))
        print(f"| {name} | {statistics.median(taken) * 1000:.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
