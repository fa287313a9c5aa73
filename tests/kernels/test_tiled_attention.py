"""Tiled attention in torch: the formula, torch's own attention, autograd and the compiler."""

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import assert_attention_equals_the_formula, draw

from lmlab.kernels.flash_torch import TiledAttention, tiled_attention

OPTIONS = [
    (False, None, None),
    (True, None, None),
    (True, 5, None),
    (True, 70, None),
    (False, None, 0.7),
    (True, 100, 0.7),
]
ATTEND = torch.nn.functional.scaled_dot_product_attention


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_shapes_of_the_course(is_causal: bool, dtype: torch.dtype) -> None:
    """(batch, N, d); L is the one saved tensor of shape (batch, N)."""
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    inputs = draw((4, 128, 64), dtype=dtype)
    out = TiledAttention.apply(*inputs, is_causal)
    saved = [x for x in out.grad_fn.saved_tensors if x.shape == (4, 128)]
    assert len(saved) == 1
    scores = inputs[0].float() @ inputs[1].float().mT / 8
    if is_causal:
        scores = scores.masked_fill(torch.ones(128, 128).triu(1).bool(), -torch.inf)
    torch.testing.assert_close(saved[0], scores.logsumexp(-1), atol=tolerance, rtol=tolerance)
    wanted = ATTEND(*inputs, is_causal=is_causal)
    torch.testing.assert_close(out, wanted, atol=tolerance, rtol=tolerance)
    grad = torch.randn_like(out)
    theirs = torch.autograd.grad(wanted, inputs, grad)
    for mine, other in zip(torch.autograd.grad(out, inputs, grad), theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=tolerance, rtol=tolerance)


def test_is_causal_may_be_left_out() -> None:
    inputs = draw((2, 20, 16))
    assert torch.equal(TiledAttention.apply(*inputs), TiledAttention.apply(*inputs, False))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(
            TiledAttention.apply(*inputs), TiledAttention.apply(*inputs, True)
        )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("time", [1, 15, 64, 65, 200])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_equals_the_formula(
    options: tuple[bool, int | None, float | None], time: int, kv_heads: int
) -> None:
    inputs = draw((2, 4, time, 24), (2, kv_heads, time, 24))
    assert_attention_equals_the_formula(tiled_attention, inputs, *options)


@given(
    lead=st.lists(st.integers(1, 3), max_size=2),
    queries=st.integers(1, 150),
    keys=st.integers(1, 150),
    width=st.integers(1, 40),
    softcap=st.none() | st.floats(0.5, 50),
)
@settings(max_examples=40, deadline=None)
def test_equals_the_formula_for_any_shape(
    lead: list[int], queries: int, keys: int, width: int, softcap: float | None
) -> None:
    inputs = draw((*lead, queries, width), (*lead, keys, width))
    assert_attention_equals_the_formula(tiled_attention, inputs, False, None, softcap)


def test_gradients_by_finite_differences() -> None:
    inputs = tuple(x.detach().double().requires_grad_() for x in draw((1, 2, 70, 3), (1, 1, 70, 3)))
    assert torch.autograd.gradcheck(
        lambda *x: tiled_attention(*x, True, 66, 0.9)[0], inputs, fast_mode=True
    )


def test_large_scores_do_not_overflow() -> None:
    q, k, v = draw((1, 130, 16))
    out, lse = tiled_attention(1e4 * q, 1e4 * k, v, True)
    assert out.isfinite().all()
    assert lse.isfinite().all()


def test_the_operator_is_registered_completely() -> None:
    inputs = draw((1, 4, 70, 8), (1, 2, 70, 8))
    for options in OPTIONS:
        torch.library.opcheck(tiled_attention, (*inputs, *options))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiles_without_a_graph_break() -> None:
    inputs = draw((1, 2, 70, 8))

    def loss(*x: torch.Tensor) -> torch.Tensor:
        return tiled_attention(*x, True, 9, 2.0)[0].square().sum() + TiledAttention.apply(*x).sum()

    wanted = torch.autograd.grad(loss(*inputs), inputs)
    compiled = torch.compile(loss, fullgraph=True)
    for mine, other in zip(torch.autograd.grad(compiled(*inputs), inputs), wanted, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((4, 8), (4, 9)), (), "k, v of one shape"),
        (((3, 4, 8), (2, 4, 8)), (), "do not divide"),
        (((2, 3, 4, 8), (1, 3, 4, 8)), (), "do not divide"),
        (((4, 8), (5, 8)), (True,), "as many keys as queries"),
        (((4, 8), (4, 8)), (False, 3), "a window needs causal=True"),
        (((4, 8), (4, 8)), (True, 0), "1 token or more"),
        (((4, 8), (4, 8)), (True, None, 0.0), "softcap must be positive"),
    ],
)
def test_wrong_arguments_are_refused(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], options: tuple[object, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tiled_attention(*draw(*shapes), *options)


def test_types_are_not_mixed() -> None:
    q, k, v = draw((4, 8))
    with pytest.raises(ValueError, match="need one type"):
        tiled_attention(q, k.half(), v)
