"""The tiled product and its traffic: counted beside predicted, and the definitions' gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lmlab.kernels import definitions
from lmlab.kernels.matmul_tiles import MatmulTiles, matmul_intensity, matmul_traffic, tiled_matmul
from lmlab.model.norm import RMSNorm
from lmlab.training.losses import token_losses

size = st.integers(1, 70)


@given(m=size, n=size, k=size, rows=size, columns=size, depth=size)
@settings(max_examples=50, deadline=None)
def test_the_traffic_is_what_the_tiles_move(
    m: int, n: int, k: int, rows: int, columns: int, depth: int
) -> None:
    tiles = MatmulTiles(rows, columns, depth)
    a, b = torch.randn(m, k), torch.randn(k, n)
    product, moved = tiled_matmul(a, b, tiles)
    torch.testing.assert_close(product, a @ b, atol=1e-4, rtol=1e-4)
    assert moved == matmul_traffic(m, n, k, tiles, 4)


def test_intensity_by_hand() -> None:
    """A tile of t x t makes 2 t^2 operations of 2 t numbers: t / 2 operations a byte in bf16."""
    tiles = MatmulTiles(128, 128, 32)
    intensity = matmul_intensity(8192, 8192, 8192, tiles, 2)
    assert intensity == pytest.approx(128 / 2, rel=0.02)
    naive = matmul_intensity(8192, 8192, 8192, MatmulTiles(1, 1, 1), 2)
    assert naive == pytest.approx(1 / 2, rel=0.02)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot multiply"):
        tiled_matmul(torch.ones(2, 3), torch.ones(2, 3), MatmulTiles(2, 2, 2))
    with pytest.raises(ValueError, match="one element or more"):
        MatmulTiles(0, 1, 1)


def test_rms_norm_is_that_of_the_model() -> None:
    torch.manual_seed(0)
    norm = RMSNorm(10)
    nn.init.normal_(norm.weight)
    x = torch.randn(7, 10, requires_grad=True)
    out, r = definitions.rms_norm(x, norm.weight, norm.eps)
    torch.testing.assert_close(out, norm(x))
    grad = torch.randn_like(out)
    ours = definitions.rms_norm_backward(grad, x, norm.weight, r)
    theirs = torch.autograd.grad(norm(x), (x, norm.weight), grad)
    for mine, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, wanted)


def test_cross_entropy_is_that_of_training() -> None:
    torch.manual_seed(0)
    logits = (3 * torch.randn(9, 11)).requires_grad_()
    targets = torch.randint(11, (9,))
    loss, lse, mean = definitions.cross_entropy(logits, targets)
    terms = token_losses(logits, targets, z_loss=0.1, label_smoothing=0.2)
    torch.testing.assert_close(loss.sum(), terms["loss"])
    torch.testing.assert_close(0.1 * lse.square().sum(), terms["z_loss"])
    torch.testing.assert_close(0.2 * (lse - loss - mean).sum(), terms["label_smoothing"])
    grads = (torch.randn(9), torch.randn(9), torch.randn(9))
    (wanted,) = torch.autograd.grad((loss, lse, mean), logits, grads)
    mine = definitions.cross_entropy_backward(grads, logits, targets, lse)
    torch.testing.assert_close(mine, wanted)


def test_weighted_sum_by_autograd() -> None:
    x, weight = torch.randn(5, 7, requires_grad=True), torch.randn(7, requires_grad=True)
    grad = torch.randn(5)
    wanted = torch.autograd.grad(definitions.weighted_sum(x, weight), (x, weight), grad)
    ours = definitions.weighted_sum_backward(grad, x, weight)
    for mine, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(mine, other)
