"""Which backend computes an attention, and which can train a model on a device."""

import torch

from lmlab.errors import ConfigError
from lmlab.kernels.native import DTYPES, INSTRUCTIONS
from lmlab.kernels.support import (
    INSTALLED,
    INTERPRETED,
    SMALLEST_TILE,
    head_width_problem,
    triton_problem,
)
from lmlab.model.attention.config import (
    AttentionBackend,
    AttentionConfig,
    HybridAttentionConfig,
    SoftmaxAttentionConfig,
)
from lmlab.model.attention.masks import AttentionPattern, Causal, SlidingWindow
from lmlab.model.config import ModelConfig
from lmlab.model.products import upcasts

FLEX_HEAD_DIM = 16
"""Smallest head width that FlexAttention supports on CUDA."""
LARGEST_BLOCKED = {torch.bfloat16: 2**15}
"""Tokens times head width up to which `blocked` was measured faster than `sdpa`; else no limit.

`sdpa` multiplies bfloat16 by instructions that the native core does not use.
"""
LONGEST_WINDOW = 512
"""Windows that are faster by `blocked` in any sequence: `sdpa` computes all scores."""


def check_backends(config: ModelConfig, device: torch.device, precision: str) -> None:
    """Raise ConfigError when a configured backend cannot train on the device in a precision."""
    key = "model.attention"
    attentions: dict[str, AttentionConfig] = {key: config.attention}
    if isinstance(config.attention, HybridAttentionConfig):
        attentions = {f"{key}.members.{name}": a for name, a in config.attention.members.items()}
    for key, attention in attentions.items():
        if not isinstance(attention, SoftmaxAttentionConfig):
            continue
        name = attention.backend
        problem = PROBLEMS[name](config, device, precision) if name in PROBLEMS else None
        if problem:
            raise ConfigError(
                f"{key}.backend", f"'{attention.backend}' {problem}; use auto or eager"
            )


def _flex_problem(config: ModelConfig, device: torch.device, precision: str) -> str | None:
    if device.type != "cuda":
        return f"trains on CUDA only, the device is '{device}'"
    if config.attention_width < FLEX_HEAD_DIM:
        return f"needs heads of width {FLEX_HEAD_DIM} or more, got {config.attention_width}"
    return None


def _blocked_problem(config: ModelConfig, device: torch.device, precision: str) -> str | None:
    if device.type != "cpu":
        return f"runs on the CPU only, the device is '{device}'"
    if not INSTRUCTIONS:
        return "needs the native core, which `pip install -e .` builds"
    if precision == "fp16":
        return "computes float32 and bfloat16, trainer.precision is 'fp16'"
    return None


def _tiled_problem(config: ModelConfig, device: torch.device, precision: str) -> str | None:
    if config.context_length < SMALLEST_TILE:
        return (
            f"computes tiles of {SMALLEST_TILE} tokens or more, "
            f"model.context_length is {config.context_length}"
        )
    return None


def _triton_problem(config: ModelConfig, device: torch.device, precision: str) -> str | None:
    own = head_width_problem(config.attention_width) or _tiled_problem(config, device, precision)
    return triton_problem(device) or own


PROBLEMS = {"flex": _flex_problem, "blocked": _blocked_problem}
PROBLEMS |= {"tiled": _tiled_problem, "triton": _triton_problem}
"""Why a backend cannot train a model on a device; None: it can."""


def choose(
    backend: AttentionBackend,
    device: str,
    head_dim: int,
    pattern: AttentionPattern,
    time: int,
    cap: float | None,
    dropout: float,
    dtype: torch.dtype,
) -> str:
    """Return the backend; `auto`: the fastest one on the device that supports the arguments.

    `blocked`, `tiled` and `triton` compute whole sequences; positions that are given, those of a
    cache or of padding, are computed as under `auto`. So is everything where the device has no such
    kernel, so that a run trained with it loads anywhere.
    """
    ordered = pattern.queries is None
    whole = ordered and isinstance(pattern.mask, Causal | SlidingWindow)
    if upcasts(torch.device(device), dtype):
        dtype = torch.float32
    blocked = device == "cpu" and dtype in DTYPES and bool(INSTRUCTIONS)
    runs = (backend != "triton" or (INSTALLED and (device == "cuda" or INTERPRETED))) and (
        backend != "blocked" or blocked
    )
    infers = not torch.is_grad_enabled() and not torch.compiler.is_compiling() and not dropout
    formula = "by_rows" if device == "cpu" and infers else "eager"
    if backend == "eager":
        return formula
    if backend in ("sdpa", "flex") or (backend != "auto" and whole and runs):
        return backend
    if (
        whole
        and blocked
        and cap is None
        and not dropout
        and _by_blocks(pattern, time, head_dim, dtype)
    ):
        return "blocked"
    single_query = pattern.queries is not None and pattern.queries.shape[-1] == 1
    if device == "cpu" and single_query and not dropout:
        return "single"
    flexible = device == "cuda" and head_dim >= FLEX_HEAD_DIM
    if flexible and not dropout and pattern.queries is None:
        # FlexAttention alone skips masked blocks, and soft-caps without all scores in memory.
        return "sdpa" if pattern.causal and cap is None else "flex"
    return "sdpa" if cap is None else formula


def _by_blocks(pattern: AttentionPattern, time: int, head_dim: int, dtype: torch.dtype) -> bool:
    """Return whether the native core is the fastest for whole sequences (benchmarks/attention.py).

    The compiler takes comparisons of a length that varies, but not `in range(...)`.
    """
    if INSTRUCTIONS[0] == "generic":  # has not been measured
        return False
    if dtype not in LARGEST_BLOCKED:
        return True
    mask = pattern.mask
    narrow = isinstance(mask, SlidingWindow) and mask.window <= LONGEST_WINDOW
    return narrow or time * head_dim <= LARGEST_BLOCKED[dtype]
