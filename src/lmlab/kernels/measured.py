"""Which Triton kernels were measured faster than torch on a device; `auto` takes only those."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lmlab.errors import UserError
from lmlab.files import atomic_write
from lmlab.kernels.support import triton_problem

TOKENS, VOCABULARY, WIDTH = 8192, 32768, 2048
"""Sizes at which cross-entropy and RMSNorm are measured."""
QUERIES = (4, 16, 2048, 64)
"""Batch, heads, tokens and head width at which attention is measured, causal."""


def speedups(device: torch.device) -> dict[str, float]:
    """Return how many times as fast as torch each measured kernel is on the device."""
    try:
        found = json.loads(_path().read_text(encoding="utf-8"))[_key(device)]
        return {name: float(ratio) for name, ratio in found.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def record(device: torch.device, ratios: Mapping[str, float]) -> Path:
    """Keep measured ratios in `~/.cache/lmlab`, or `$LMLAB_CACHE`; returns the file."""
    path = _path()
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    with atomic_write(path) as file:
        json.dump(known | {_key(device): dict(ratios)}, file, indent=2)
    return path


def measure(device: torch.device) -> dict[str, float]:
    """Return the time of torch divided by that of Triton, forward and backward, in bfloat16.

    torch is its fused attention, and what torch.compile makes of cross-entropy and RMSNorm.
    Raises UserError where the kernels do not run.
    """
    if problem := triton_problem(device):
        raise UserError(f"the kernels cannot be measured: Triton {problem}")
    from triton.testing import do_bench

    return {
        name: do_bench(theirs) / do_bench(ours) for name, (theirs, ours) in _pairs(device).items()
    }


def _pairs(
    device: torch.device,
) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    from lmlab.kernels import definitions
    from lmlab.kernels.flash_triton import triton_attention
    from lmlab.kernels.triton_kernels.cross_entropy import triton_cross_entropy
    from lmlab.kernels.triton_kernels.rms_norm import triton_rms_norm

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True)

    q, k, v = draw(*QUERIES), draw(*QUERIES), draw(*QUERIES)
    logits, targets = draw(TOKENS, VOCABULARY), torch.zeros(TOKENS, dtype=torch.long, device=device)
    x, weight = draw(TOKENS, WIDTH), draw(WIDTH)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    losses, norm = torch.compile(definitions.cross_entropy), torch.compile(definitions.rms_norm)

    def both(inputs: tuple[Tensor, ...], function: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function().sum(), inputs)

    return {
        "attention": (
            both((q, k, v), lambda: sdpa(q, k, v, is_causal=True)),
            both((q, k, v), lambda: triton_attention(q, k, v, True)[0]),
        ),
        "cross_entropy": (
            both((logits,), lambda: losses(logits, targets)[0]),
            both((logits,), lambda: triton_cross_entropy(logits, targets)[0]),
        ),
        "rms_norm": (
            both((x, weight), lambda: norm(x, weight, 1e-5)[0]),
            both((x, weight), lambda: triton_rms_norm(x, weight, 1e-5)[0]),
        ),
    }


def _path() -> Path:
    return Path(os.environ.get("LMLAB_CACHE") or Path.home() / ".cache" / "lmlab", "kernels.json")


def _key(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{name}, torch {torch.__version__}"
