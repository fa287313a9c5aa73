"""Our Triton attention beside torch's back ends, each by its name, on a GPU.

    python benchmarks/flash.py [--leaderboard] [--output flash.md]

Causal, batch 1, one head, lengths 2^7 to 2^16, head widths 16 to 128, bf16 and fp32: milliseconds
of forward, backward, and both, medians of `triton.testing.do_bench`. `--leaderboard` is 16 heads of
64, 16,384 tokens, bf16. A back end that does not take a shape, or memory that does not suffice, is
a row that says so.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from lmlab.files import atomic_write
from lmlab.text import markdown_table

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
LENGTHS = [2**power for power in range(7, 17)]
WIDTHS = (16, 32, 64, 128)
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
LEADERBOARD = (16, 16384, 64)
"""Heads, tokens, width."""
SDPA = {
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "flash (FA2)": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--leaderboard", action="store_true")
    parser.add_argument("--output", type=Path, metavar="FILE.md")
    arguments = parser.parse_args()
    problem = missing()
    if problem:
        sys.exit(problem)
    shapes = [("bf16", LEADERBOARD)] if arguments.leaderboard else list(all_shapes())
    rows = [row for dtype, shape in shapes for row in measured(dtype, shape)]
    header = ["attention", "type", "heads", "N", "d", "forward", "backward", "both (ms)"]
    where = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    text = f"{where}\n\n{markdown_table(header, rows)}"
    print(text)
    if arguments.output:
        with atomic_write(arguments.output) as file:
            file.write(f"{text}\n")


def missing() -> str | None:
    """Return in one line why this cannot run here; None when it can."""
    if not torch.cuda.is_available():
        return "flash.py: needs a CUDA device, torch finds none here"
    try:
        import triton.testing  # noqa: F401
    except ImportError:
        return "flash.py: needs Triton: pip install triton"
    return None


def all_shapes() -> Iterator[tuple[str, tuple[int, int, int]]]:
    for dtype in DTYPES:
        for width in WIDTHS:
            for length in LENGTHS:
                yield dtype, (1, length, width)


def backends() -> dict[str, Attend]:
    """Return each implementation by its name."""
    found: dict[str, Attend] = {name: partial(sdpa, backend) for name, backend in SDPA.items()}
    from lmlab.kernels.flash_triton import TritonAttention

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return TritonAttention.apply(q, k, v, True)

    return {"lmlab": ours} | found


def sdpa(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def measured(dtype: str, shape: tuple[int, int, int]) -> Iterator[list[str]]:
    """Yield a row for each implementation."""
    heads, length, width = shape
    for name, attend in backends().items():
        row = [name, dtype, f"{heads}", f"{length}", f"{width}"]
        try:
            yield [*row, *(f"{ms:.3f}" for ms in times(attend, DTYPES[dtype], shape))]
        except torch.OutOfMemoryError:
            yield [*row, "out of memory", "", ""]
        except RuntimeError:  # torch's: no available kernel
            yield [*row, "does not take it", "", ""]


def times(
    attend: Attend, dtype: torch.dtype, shape: tuple[int, int, int]
) -> tuple[float, float, float]:
    """Return the median milliseconds of forward, backward and both."""
    from triton.testing import do_bench

    q, k, v = (
        torch.randn(1, *shape, device="cuda", dtype=dtype, requires_grad=True) for _ in range(3)
    )
    grad = torch.randn(1, *shape, device="cuda", dtype=dtype)
    out = attend(q, k, v)

    def both() -> None:
        attend(q, k, v).backward(grad)

    inputs = [q, k, v]
    forward = do_bench(lambda: attend(q, k, v), return_mode="median")
    backward = do_bench(
        lambda: out.backward(grad, retain_graph=True), grad_to_none=inputs, return_mode="median"
    )
    return forward, backward, do_bench(both, grad_to_none=inputs, return_mode="median")


if __name__ == "__main__":
    main()
