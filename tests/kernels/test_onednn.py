"""Products by oneDNN, and their gradients, against torch's own in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lmlab.kernels.onednn import AVAILABLE, onednn_product

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="needs oneDNN")
SIZES = st.integers(1, 40)


def factors(m: int, n: int, k: int, transposed: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(m + 100 * n + 10_000 * k)
    shapes = ((k, m), (k, n)) if transposed else ((m, k), (n, k))
    a, b = (torch.randn(shape, generator=generator) for shape in shapes)
    return (a.mT, b.mT) if transposed else (a, b)


def with_gradients(a: Tensor, b: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    a, b = a.detach().requires_grad_(), b.detach().requires_grad_()
    y = onednn_product(a, b) if a.dtype == torch.float32 else a @ b.mT
    first = torch.autograd.grad(y, (a, b), grad, create_graph=True)
    squares = first[0].square().sum() + first[1].square().sum()
    return (y, *first, *torch.autograd.grad(squares, (a, b)))


@given(SIZES, SIZES, SIZES, st.booleans())
def test_values_and_gradients_of_both_orders(m: int, n: int, k: int, transposed: bool) -> None:
    a, b = factors(m, n, k, transposed)
    grad = torch.linspace(-1, 1, m * n).view(m, n)
    exact = with_gradients(a.double(), b.double(), grad.double())
    for ours, expected in zip(with_gradients(a, b, grad), exact, strict=True):
        assert ours.shape == expected.shape
        torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-4)


def test_the_operator_keeps_torchs_rules() -> None:
    a, b = (x.requires_grad_() for x in factors(5, 7, 3))
    torch.library.opcheck(torch.ops.lmlab.onednn_product.default, (a, b))


def test_only_gradients_that_are_needed_are_computed() -> None:
    a, b = factors(5, 7, 3)
    onednn_product(a, b.requires_grad_()).sum().backward()
    assert b.grad is not None
    torch.testing.assert_close(b.grad, a.sum(0).expand(7, 3))
