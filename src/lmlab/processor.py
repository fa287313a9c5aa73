"""What this machine's processor computes fast."""

import platform
from pathlib import Path

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "AuthenticAMD" in platform.processor()


FAST_BFLOAT16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
"""Whether this is an x86 processor that multiplies bfloat16 faster than float32."""
SLOW_BFLOAT16 = platform.machine().lower() in ("x86_64", "amd64") and not FAST_BFLOAT16
"""Whether this is an x86 processor without bfloat16 instructions."""
FAST_ONEDNN = torch.cpu._is_avx512_supported() and _is_amd()
"""Whether oneDNN multiplies float32 faster than MKL, which has no AVX-512 for AMD's processors."""


def computed_here(x: Tensor) -> bool:
    """Return whether this processor computes with `x`; fake tensors stand for another device's."""
    return x.is_cpu and not isinstance(x, FakeTensor)
