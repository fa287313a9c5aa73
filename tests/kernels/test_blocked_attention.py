"""Attention by blocks of queries against the definition."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmlab.kernels import blocked_attention as module
from lmlab.kernels.blocked_attention import blocked_attention
from lmlab.model.attention.backends import eager
from lmlab.model.attention.masks import AttentionPattern, Causal, SlidingWindow

Shape = tuple[int, int, int, int, int, int | None]
SHAPES = st.tuples(
    st.integers(1, 3),  # batch
    st.integers(1, 3),  # key heads
    st.integers(1, 3),  # query heads for each
    st.integers(1, 150),  # time
    st.integers(1, 9),  # width
    st.none() | st.integers(1, 160),  # window
)


def made(shape: Shape, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, group, time, width, _ = shape
    generator = torch.Generator().manual_seed(time)

    def draw(count: int) -> Tensor:
        x = torch.randn(batch, time, count, width, generator=generator).to(dtype)
        return x.transpose(1, 2).requires_grad_()  # not contiguous, as in the model

    return draw(heads * group), draw(heads), draw(heads)


def definition(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    mask = Causal() if window is None else SlidingWindow(window)
    return eager(q, k, v, AttentionPattern(mask), None, 0.0)


def gradients(out: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    upstream = torch.randn(out.shape, generator=generator).to(out.dtype)
    return torch.autograd.grad(out, inputs, upstream)


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.integers(1, 3))
def test_it_is_the_definition_with_its_gradients(shape: Shape, groups: int) -> None:
    inputs, window = made(shape), shape[-1]
    ours, theirs = blocked_attention(*inputs, window), definition(*inputs, window)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for mine, other in zip(gradients(ours, inputs), gradients(theirs, inputs), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        assert torch.equal(blocked_attention(*inputs, window), ours)


@pytest.mark.parametrize("window", [None, 70])
def test_groups_of_heads_change_nothing(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few scores at a time divide the heads into several groups."""
    shape = (2, 3, 2, 130, 8, window)
    inputs = made(shape)
    whole = blocked_attention(*inputs, window)
    expected = gradients(whole, inputs)
    monkeypatch.setattr(module, "CACHED_SCORES", 1)
    parts = blocked_attention(*inputs, window)
    assert torch.equal(parts, whole)
    for mine, other in zip(gradients(parts, inputs), expected, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("window", [None, 70])
def test_bfloat16_is_as_exact_as_torchs_kernel(window: int | None) -> None:
    shape = (2, 2, 2, 200, 32, window)
    inputs = made(shape, torch.bfloat16)
    exact = tuple(x.detach().double().requires_grad_() for x in inputs)
    expected_out = definition(*exact, window)
    expected = [x.detach() for x in (expected_out, *gradients(expected_out, exact))]
    time = torch.arange(200)
    distance = time[:, None] - time
    mask = (distance >= 0) & (distance < (window or 200))
    peer = torch.nn.functional.scaled_dot_product_attention(
        *inputs, attn_mask=mask, enable_gqa=True
    )

    def errors(out: Tensor) -> list[float]:
        found: list[Any] = [out, *gradients(out, inputs)]
        return [
            float((x.detach().double() - y).norm() / y.norm())
            for x, y in zip(found, expected, strict=True)
        ]

    pairs = zip(errors(blocked_attention(*inputs, window)), errors(peer), strict=True)
    for mine, theirs in pairs:
        assert mine < max(1.6 * theirs, 0.004)


def test_it_is_an_operator_that_compiles() -> None:
    shape = (1, 2, 2, 70, 8, 40)
    inputs = made(shape)
    torch.library.opcheck(torch.ops.lmlab.blocked_attention, (*inputs, 40, True))
    out = blocked_attention(*inputs, 40)
    compiled = torch.compile(blocked_attention, backend="aot_eager", fullgraph=True)(*inputs, 40)
    assert torch.equal(compiled, out)
    for mine, other in zip(gradients(compiled, inputs), gradients(out, inputs), strict=True):
        assert torch.equal(mine, other)


def test_scores_are_float32_under_autocast() -> None:
    inputs = tuple(8 * x.detach().bfloat16() for x in made((2, 2, 2, 40, 8, None)))
    alone = blocked_attention(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(blocked_attention(*inputs), alone)
