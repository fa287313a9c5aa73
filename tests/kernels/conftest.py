"""Where the Triton kernels are tested: on a CUDA device, or in Triton's interpreter."""

import pytest
import torch
from kernel_cases import INTERPRETED


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
