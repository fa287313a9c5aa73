"""Attention of the native core beside torch's fused kernel, on the CPU.

    python benchmarks/attention.py [--rounds 5] [--heads 16] [--width 32] [--dtype bf16]
        [--kv-heads 4] [--window 128]

Both are interleaved in one process, 2,048 tokens a batch; a row is a length. The figures are
medians of the forward pass alone, and of forward and backward; ratios are taken in each round.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from lmlab.model.attention.backends import BACKENDS
from lmlab.model.attention.masks import AttentionPattern, Causal, SlidingWindow

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.tables import machine, markdown

TOKENS = 2048
LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--kv-heads", type=int, help="heads of keys and values; default: all")
    parser.add_argument("--window", type=int, help="tokens that a query sees; default: all")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [measure(length, options) for length in LENGTHS]
    print(machine(["torch"]))
    keys = f"{options.kv_heads or options.heads} of keys, window {options.window}"
    print(f"{options.heads} heads of {options.width}, {keys}, {options.dtype}, ", end="")
    print(f"{options.threads} threads\n")
    header = ["length", "fused, ms", "blocked, ms", "ratio"]
    print(markdown([*header, "forward: fused, ms", "blocked, ms", "ratio"], rows))


def measure(length: int, options: argparse.Namespace) -> list[str]:
    shape = (TOKENS // length, options.heads, length, options.width)
    keys = (shape[0], options.kv_heads or options.heads, *shape[2:])
    made = [torch.randn(s).to(DTYPES[options.dtype]) for s in (shape, keys, keys, shape)]
    inputs, upstream = [x.requires_grad_() for x in made[:3]], made[3]
    mask = Causal() if options.window is None else SlidingWindow(options.window)
    pattern = AttentionPattern(mask)
    kernels: dict[str, Callable[..., torch.Tensor]] = {
        name: partial(BACKENDS[backend], pattern=pattern, cap=None, dropout=0.0)
        for name, backend in (("fused", "sdpa"), ("blocked", "blocked"))
    }
    row = [str(length)]
    for backward in (True, False):
        seconds: dict[str, list[float]] = {name: [] for name in kernels}
        for _ in range(options.rounds + 1):
            for name, attend in kernels.items():
                started = time.perf_counter()
                with torch.set_grad_enabled(backward):
                    out = attend(*inputs)
                    if backward:
                        torch.autograd.grad(out, inputs, upstream)
                seconds[name].append(time.perf_counter() - started)
        fused, blocked = (times[1:] for times in seconds.values())
        ratio = statistics.median(a / b for a, b in zip(fused, blocked, strict=True))
        row += [f"{statistics.median(times) * 1000:.1f}" for times in (fused, blocked)]
        row.append(f"{ratio:.2f}")
    return row


if __name__ == "__main__":
    main()
