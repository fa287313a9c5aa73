"""Parts of one tensor: joined and split."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lmlab.kernels.parts import are_parts, empty_parts_like, join_rows, split_parts

SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@given(SIZES, st.integers(1, 3), st.integers(1, 3))
def test_splits_and_their_gradients(sizes: list[int], batch: int, time: int) -> None:
    x = torch.randn(batch, time, sum(sizes), requires_grad=True)
    parts, expected = split_parts(x, sizes), x.split(sizes, dim=-1)
    assert all(map(torch.equal, parts, expected))
    assert are_parts(*parts)
    upstream = torch.randn(batch, time, sum(sizes))
    for grads in (upstream.split(sizes, dim=-1), [g.clone() for g in upstream.split(sizes, -1)]):
        (grad,) = torch.autograd.grad(parts, x, grads, retain_graph=True)
        assert torch.equal(grad, upstream)


def test_gradients_that_are_parts_are_not_copied() -> None:
    x = torch.randn(2, 3, 7, requires_grad=True)
    parts = split_parts(x, [4, 3])
    grads = empty_parts_like(*parts)
    for each in grads:
        each.normal_()
    (grad,) = torch.autograd.grad(parts, x, grads)
    assert grad.data_ptr() == grads[0].data_ptr()
    assert torch.equal(grad, torch.cat(grads, dim=-1))


def test_a_second_derivative() -> None:
    x = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)

    def product(x: Tensor) -> Tensor:
        a, b = split_parts(x, [3, 2])
        return a.pow(3).sum() * b.square().sum()

    assert torch.autograd.gradgradcheck(product, (x,))


@pytest.mark.parametrize(
    "others",
    [
        lambda whole: (whole[:, 3:], whole[:, :3]),  # another order
        lambda whole: (whole[:, :3], whole[:, 4:]),  # a gap
        lambda whole: (whole[:, :3], whole[:, 3:6]),  # the row goes on
        lambda whole: (whole[:, :3], whole[:, 3:].clone()),  # elsewhere
        lambda whole: (whole[:3, :3], whole[:, 3:]),  # another number of rows
        lambda whole: (whole.mT[:, :3], whole.mT[:, 3:]),  # not in order
        lambda whole: (whole[0, :3], whole[0, 3:]),  # one row, which has no stride
    ],
)
def test_what_are_no_parts(others: object) -> None:
    parts = others(torch.zeros(7, 7))  # type: ignore[operator]
    assert not are_parts(*parts)
    empty = empty_parts_like(*parts)
    assert [x.shape for x in empty] == [x.shape for x in parts]
    assert all(x.is_contiguous() for x in empty)


def test_joined_rows_and_their_gradients() -> None:
    matrices = [torch.randn(n, 3, requires_grad=True) for n in (2, 1, 4)]
    whole = join_rows(torch.bfloat16, *matrices)
    assert torch.equal(whole, torch.cat(matrices).bfloat16())
    upstream = torch.randn(7, 3).bfloat16()
    grads = torch.autograd.grad(whole, matrices, upstream)
    assert all(map(torch.equal, grads, upstream.float().split([2, 1, 4])))
