"""Functions without a second derivative say so, whatever the gradient they are given."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lmlab.kernels import TiledAttention, native
from lmlab.kernels.blocked_attention import _BlockedAttention
from lmlab.kernels.low_precision import _Fp8Linear, _MXLinear
from lmlab.model import RMSNorm
from lmlab.model.ffn.experts import _Products
from lmlab.model.ffn.glu import _SiluGate
from lmlab.model.products import _UpcastLinear
from lmlab.profiling.demos import Recomputed

WEIGHT = torch.linspace(-1, 1, 256).view(16, 16)
NORM = RMSNorm(16)


def upcast(x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = _UpcastLinear.apply(x, WEIGHT.clone().requires_grad_())
    assert isinstance(y, Tensor)
    return y


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "norm": lambda x: NORM(x),
    "gate": lambda x: _SiluGate.apply(x, x * 2),
    "experts": lambda x: _Products.apply(x, WEIGHT.expand(2, 16, 16), [10, 6]),
    "upcast": upcast,
    "mxfp8": lambda x: _MXLinear.apply(x.repeat(2, 2), WEIGHT.repeat(2, 2), torch.float32),
    "fp8": lambda x: _Fp8Linear.apply(x, WEIGHT, torch.bfloat16),
    "tiled attention": lambda x: TiledAttention.apply(x, x, x, True),
    "blocked attention": lambda x: _BlockedAttention.apply(*(x[None, None],) * 3, None, None, None),
    "recomputed": Recomputed.apply,
}
NEEDS_NATIVE = {"gate", "blocked attention"}


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_second_derivative_is_an_error(name: str, constant: bool) -> None:
    if name in NEEDS_NATIVE and not native.INSTRUCTIONS:
        pytest.skip("needs the native core")
    torch.manual_seed(0)
    x = torch.randn(16, 16, requires_grad=True)
    y = FUNCTIONS[name](x)
    loss = y.float().sum() if constant else y.float().square().sum()
    (grad,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        (grad.square().sum() + x.sum()).backward()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_first_derivative_is_that_without_a_graph(name: str) -> None:
    if name in NEEDS_NATIVE and not native.INSTRUCTIONS:
        pytest.skip("needs the native core")
    torch.manual_seed(0)
    x = torch.randn(16, 16, requires_grad=True)
    first, second = (
        torch.autograd.grad(FUNCTIONS[name](x).float().sum(), x, create_graph=graph)[0]
        for graph in (False, True)
    )
    torch.testing.assert_close(second, first, rtol=0, atol=0)
