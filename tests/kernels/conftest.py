"""Where the Triton kernels are tested: on a CUDA device, or in Triton's interpreter."""

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(scope="session")
def device() -> str:
    """Return the device of the Triton kernels."""
    return "cpu" if INTERPRETED else "cuda"


@pytest.fixture(params=[torch.float32, torch.float16, torch.bfloat16], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Return a type the kernels take."""
    if INTERPRETED and request.param == torch.bfloat16:
        pytest.skip("the interpreter multiplies bfloat16 wrongly")
    assert isinstance(request.param, torch.dtype)
    return request.param
