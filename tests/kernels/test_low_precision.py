"""Products in eight bits: against exact products of the rounded numbers, and refusals."""

import pytest
import torch
from torch import Tensor

from lmlab.kernels import low_precision
from lmlab.kernels.low_precision import fp8_product, low_precision_problem, mxfp8_product
from lmlab.kernels.mx import quantize_dequantize

CPU = torch.device("cpu")
RUNS_FP8 = low_precision_problem("fp8", CPU) is None
needs_fp8 = pytest.mark.skipif(not RUNS_FP8, reason="this torch has no float8 product on the CPU")


def draw(tokens: int, d_in: int, d_out: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x, weight = torch.randn(tokens, d_in), torch.randn(d_out, d_in)
    return x.requires_grad_(), weight.requires_grad_(), torch.randn(tokens, d_out)


@pytest.mark.parametrize("shape", [(64, 32, 96), (5, 33, 7)])
def test_mxfp8_rounds_along_the_summed_dimension(shape: tuple[int, int, int]) -> None:
    x, weight, grad = draw(*shape)
    y = mxfp8_product(x, weight, torch.float32)

    def rounded(tensor: Tensor, dim: int) -> Tensor:
        return quantize_dequantize(tensor, "e4m3", "rceil", dim)

    torch.testing.assert_close(y, rounded(x, 1) @ rounded(weight, 1).T)
    x_grad, weight_grad = torch.autograd.grad(y, (x, weight), grad)
    torch.testing.assert_close(x_grad, rounded(grad, 1) @ rounded(weight, 0))
    torch.testing.assert_close(weight_grad, rounded(grad, 0).T @ rounded(x, 0))


def tensorwise(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `x` rounded with the scale that maps its largest magnitude to the limit."""
    scale = x.abs().max() / torch.finfo(dtype).max
    return (x / scale).to(dtype).float() * scale


@needs_fp8
@pytest.mark.parametrize("tokens", [1, 16, 70])
def test_fp8_scales_whole_tensors(tokens: int) -> None:
    x, weight, grad = draw(tokens, 48, 32)
    y = fp8_product(x, weight, torch.float32)
    e4m3, e5m2 = torch.float8_e4m3fn, torch.float8_e5m2
    x8, weight8, grad8 = tensorwise(x, e4m3), tensorwise(weight, e4m3), tensorwise(grad, e5m2)
    torch.testing.assert_close(y, x8 @ weight8.T, atol=1e-3, rtol=1e-3)
    x_grad, weight_grad = torch.autograd.grad(y, (x, weight), grad)
    torch.testing.assert_close(x_grad, grad8 @ weight8, atol=0.1, rtol=0.02)
    torch.testing.assert_close(weight_grad, grad8.T @ x8, atol=0.1, rtol=0.02)


@pytest.mark.parametrize("product", [mxfp8_product, pytest.param(fp8_product, marks=needs_fp8)])
def test_leading_dimensions_zeros_and_no_tokens(product: low_precision.Product) -> None:
    weight = torch.randn(32, 16, requires_grad=True)
    for shape in ((2, 3, 16), (0, 16)):
        x = torch.zeros(shape, requires_grad=True)
        y = product(x, weight, torch.bfloat16)
        assert y.shape == (*shape[:-1], 32)
        assert y.dtype == torch.bfloat16
        y.sum().backward()
        assert weight.grad is not None
        assert weight.grad.isfinite().all()
        assert y.float().abs().sum() == 0


def test_fp8_refuses_widths_that_are_no_multiple_of_16() -> None:
    x, weight, _ = draw(16, 24, 32)
    with pytest.raises(ValueError, match="multiples of 16"):
        fp8_product(x, weight, torch.bfloat16)


@pytest.mark.parametrize(
    ("capability", "precision", "problem"),
    [((8, 0), "fp8", "needs compute capability 8.9"), ((9, 0), "fp8", None)],
)
def test_old_devices_are_refused(
    capability: tuple[int, int],
    precision: str,
    problem: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    found = low_precision_problem(precision, torch.device("cuda"))
    assert found is None if problem is None else found is not None and found.startswith(problem)


def test_a_device_without_the_product_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> Tensor:
        raise NotImplementedError

    monkeypatch.setitem(low_precision.PRODUCTS, "fp8", absent)
    problem = low_precision_problem("fp8", CPU)
    assert problem is not None
    assert problem.startswith("is not supported on 'cpu' by torch")
