"""What the Triton kernels take: packages, devices, head widths, types. Imports no triton."""

import os
from importlib.util import find_spec

import torch

INSTALL = "pip install triton"
HEAD_WIDTHS = range(16, 129)
"""Head widths of the Triton attention."""
SMALLEST_TILE = 16
"""Tokens of the smallest tile of a matrix product."""
CAPABILITY = (8, 0)
"""The oldest compute capability that the kernels are compiled for."""
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""Types that the Triton kernels take."""
INSTALLED = find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton runs kernels in its interpreter, on tensors of the CPU."""


def triton_problem(device: torch.device) -> str | None:
    """Return why the Triton kernels do not run on the device; None: they do."""
    if not INSTALLED:
        return f"needs Triton, which is not installed: {INSTALL}"
    if device.type == "cpu" and INTERPRETED:
        return None
    if device.type != "cuda":
        return f"runs on CUDA only, the device is '{device}'"
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        return f"needs compute capability 8.0, the device has {'.'.join(map(str, capability))}"
    return None


def head_width_problem(width: int) -> str | None:
    """Return why the Triton attention does not take heads of a width; None: it does."""
    if width in HEAD_WIDTHS:
        return None
    return f"takes heads of width {HEAD_WIDTHS[0]} to {HEAD_WIDTHS[-1]}, got {width}"


def check_head_width(width: int, dtype: torch.dtype) -> None:
    """Raise ValueError for a head width or type that the Triton attention does not take."""
    if problem := head_width_problem(width):
        raise ValueError(f"the Triton attention {problem}")
    check_dtype(dtype)


def check_dtype(dtype: torch.dtype) -> None:
    """Raise ValueError for a type that the Triton kernels do not take."""
    if dtype not in DTYPES:
        names = ", ".join(str(t).removeprefix("torch.") for t in DTYPES)
        raise ValueError(f"the Triton kernels take {names}, got {str(dtype)[6:]}")


def matmul_precision(dtype: torch.dtype) -> str:
    """Return tl.dot's `input_precision`: TF32 where torch's own float32 products may use it."""
    allowed = dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    return "tf32" if allowed else "ieee"
