"""Attention of the native core against the definition, with each set of instructions."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lmlab.kernels import native
from lmlab.kernels.blocked_attention import blocked_attention
from lmlab.kernels.parts import are_parts
from lmlab.model.attention.backends import eager
from lmlab.model.attention.heads import rotate_heads
from lmlab.model.attention.masks import AttentionPattern, Causal, SlidingWindow
from lmlab.model.layers import scaled_dot_product_attention
from lmlab.model.position import RotaryEmbedding

Shape = tuple[int, int, int, int, int, int | None]
SHAPES = st.tuples(
    st.integers(1, 3),  # batch
    st.integers(1, 3),  # key heads
    st.integers(1, 3),  # query heads for each
    st.integers(1, 150),  # time
    st.integers(1, 40),  # width
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


@pytest.fixture(params=native.INSTRUCTIONS)
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The core uses these instructions."""
    monkeypatch.setattr(native, "INSTRUCTIONS", (request.param,))


@pytest.mark.usefixtures("instructions")
@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(SHAPES)
def test_it_is_the_definition_with_its_gradients(shape: Shape) -> None:
    inputs, window = made(shape), shape[-1]
    ours, theirs = blocked_attention(*inputs, window), definition(*inputs, window)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for mine, other in zip(gradients(ours, inputs), gradients(theirs, inputs), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("window", [None, 70])
def test_threads_and_neighbours_change_nothing(window: int | None) -> None:
    """Each head of a sequence is computed by itself."""
    inputs = made((3, 2, 2, 130, 24, window))
    whole = blocked_attention(*inputs, window)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(blocked_attention(*inputs, window), whole)
    finally:
        torch.set_num_threads(threads)
    alone = tuple(x[1:2].detach().clone().requires_grad_() for x in inputs)
    assert torch.equal(blocked_attention(*alone, window), whole[1:2])


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_scores_and_nan(dtype: torch.dtype) -> None:
    """Nothing overflows; a NaN reaches each query that sees it, and none of an earlier block."""
    q, k, v = (x.detach().clone() for x in made((1, 1, 1, 70, 8, None), dtype))
    out = blocked_attention(100 * q, 100 * k, v)
    expected = definition(*(x.double() for x in (100 * q, 100 * k, v)), None)
    torch.testing.assert_close(out.double(), expected, atol=1e-2, rtol=1e-2)
    for x in (k, v):
        spoilt = x.clone()
        spoilt[0, 0, 66] = float("nan")
        args = (q, spoilt, v) if x is k else (q, k, spoilt)
        finite = blocked_attention(*args).isfinite().all(dim=-1)[0, 0]
        assert finite[:64].all()
        assert not finite[66:].any()


def shared(rows: list[list[int]]) -> tuple[Tensor, int]:
    """The table of rows whose equal beginnings are the same tokens, and the number of tokens."""
    known: dict[tuple[int, ...], int] = {}
    time = max(map(len, rows))
    table = torch.zeros(len(rows), 2 + time, dtype=torch.long)
    for row, ids in zip(table, rows, strict=True):
        beginnings = [tuple(ids[: end + 1]) for end in range(len(ids))]
        row[0], row[1] = sum(each in known for each in beginnings), len(ids)
        numbers = [known.setdefault(each, len(known)) for each in beginnings]
        row[2 : 2 + len(ids)] = torch.tensor(numbers)
    return table, len(known)


@pytest.mark.usefixtures("instructions")
@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=80), min_size=1, max_size=6),
    st.integers(1, 40),
    st.none() | st.integers(1, 90),
)
def test_rows_that_share_tokens(rows: list[list[int]], width: int, window: int | None) -> None:
    """Against each row by itself, whose gradients are added up."""
    table, count = shared(rows)
    inputs = made((1, 2, 2, count + 3, width, None))  # three tokens are in no row
    ours = blocked_attention(*inputs, window, table)
    theirs = torch.zeros_like(ours)
    for first, length, *tokens in table.tolist():
        own = tokens[:length]
        out = definition(*(x[:, :, own] for x in inputs), window)
        places = torch.tensor(own[first:], dtype=torch.long)
        theirs = theirs.index_copy(2, places, out[:, :, first:])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for mine, other in zip(gradients(ours, inputs), gradients(theirs, inputs), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("width", [2, 24, 32])
def test_rotation(dtype: torch.dtype, per_row: bool, width: int) -> None:
    """Against attention to queries and keys that are rotated before."""
    inputs = made((2, 2, 2, 150, width, None), dtype)
    rotation = RotaryEmbedding(100.0, width, 200).rotation(torch.arange(150) + 3)
    rotation = torch.stack((rotation, rotation.flip(0))) if per_row else rotation.unsqueeze(0)
    ours = blocked_attention(*inputs, 70, rotation=rotation)
    exact = tuple(x.detach().double().requires_grad_() for x in inputs)
    q, k = (rotate_heads(x.float(), rotation).double() for x in exact[:2])
    theirs = definition(q, k, exact[2], 70)
    rounding = 1e-5 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(ours.double(), theirs, atol=rounding, rtol=rounding)
    expected = gradients(theirs.to(dtype), exact)
    for mine, other in zip(gradients(ours, inputs), expected, strict=True):
        torch.testing.assert_close(mine.double(), other, atol=2 * rounding, rtol=2 * rounding)


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("window", [None, 30])
def test_rotation_of_rows_that_share_tokens(window: int | None) -> None:
    table, count = shared([[0] * 50 + [1] * 30, [0] * 50 + [0] * 9, [1] * 70])
    inputs = made((1, 2, 2, count, 16, None))
    rotation = RotaryEmbedding(100.0, 16, 200).rotation(torch.arange(count) % 80).unsqueeze(0)
    ours = blocked_attention(*inputs, window, table, rotation)
    q, k = (rotate_heads(x, rotation) for x in inputs[:2])
    theirs = blocked_attention(q, k, inputs[2], window, table)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for mine, other in zip(gradients(ours, inputs), gradients(theirs, inputs), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 5, 4, 2), (1, 6, 3, 2), (3, 6, 4, 2)])
def test_rotations_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    q = torch.ones(2, 1, 6, 8)
    with pytest.raises(ValueError, match="the rotation is not"):
        native.attention(q, q, q, None, rotation=torch.ones(shape))


def test_gradients_of_parts_are_parts() -> None:
    """Queries, keys and values of one product: their gradients need not be joined."""
    whole = torch.randn(2, 9, 4 * 8)
    q, k, v = (x.unflatten(-1, (-1, 8)).transpose(1, 2) for x in whole.split([16, 8, 8], dim=-1))
    out, normalisers = native.attention(q, k, v, None)
    grads = native.attention_backward(out, q, k, v, out, normalisers, None, as_parts=True)
    assert are_parts(*(x.transpose(1, 2).flatten(-2) for x in grads))
    apart = native.attention_backward(out, q, k, v, out, normalisers, None)
    assert all(map(torch.equal, grads, apart))


@pytest.mark.parametrize("entry", [(0, 0, -1), (0, 0, 5), (0, 1, 4), (0, 3, 9), (1, 4, -2)])
def test_tokens_that_are_not_there_are_refused(entry: tuple[int, int, int]) -> None:
    table, count = shared([[0, 1, 1], [0, 1, 0]])
    q = torch.ones(1, 2, count, 8)
    assert native.attention(q, q, q, None, table)[0].shape == q.shape
    row, column, value = entry
    table = table.clone()
    table[row, column] = value
    with pytest.raises(ValueError, match="not there"):
        native.attention(q, q, q, None, table)


@pytest.mark.usefixtures("instructions")
@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(SHAPES, st.sampled_from([torch.float32, torch.bfloat16]), st.sampled_from([None, 2.0]))
def test_a_single_query(shape: Shape, dtype: torch.dtype, cap: float | None) -> None:
    """Against the definition in float64, also of a query without a key.

    Other rows and hidden keys at the end change nothing.
    """
    q, k, v = (x.detach() for x in made(shape, dtype))
    q = q[:, :, -1:]
    generator = torch.Generator().manual_seed(2)
    allowed = torch.rand(len(q), k.shape[2], generator=generator) < 0.7
    out = native.single_attention(q, k, v, allowed, cap)
    exact = [x.double() for x in (q, k, v)]
    group = q.shape[1] // k.shape[1]
    exact[1:] = [x.repeat_interleave(group, dim=1) for x in exact[1:]]
    mask = allowed[:, None, None]
    expected = scaled_dot_product_attention(*exact, mask, logit_softcap=cap)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=tolerance)
    longer = [F.pad(x[:1], (0, 0, 0, 33)) for x in (k, v)]
    alone = native.single_attention(q[:1], *longer, F.pad(allowed[:1], (0, 33)), cap)
    assert torch.equal(alone, out[:1])
    everything = native.single_attention(q, k, v, torch.ones(1, k.shape[2], dtype=torch.bool), cap)
    assert torch.equal(everything, native.single_attention(q, k, v, None, cap))


@pytest.mark.parametrize("changed", [(1, 2, 3, 8), (2, 2, 4, 8), (2, 1, 3, 8), (2, 2, 3, 7)])
def test_other_shapes_are_refused(changed: tuple[int, ...]) -> None:
    q = torch.ones(2, 2, 3, 8)
    with pytest.raises(ValueError, match="different shapes"):
        native.attention(q, q, torch.ones(changed), None)


def test_other_dtypes_are_refused() -> None:
    q = torch.ones(2, 2, 3, 8)
    for inputs in ((q, q, q.bfloat16()), (q.bfloat16(), q, q), (q.half(),) * 3, (q.double(),) * 3):
        with pytest.raises(ValueError, match="float32"):
            native.attention(*inputs, None)


def test_no_sequences() -> None:
    q = torch.ones(0, 2, 3, 8)
    assert native.attention(q, q, q, None)[0].shape == q.shape


@pytest.mark.usefixtures("instructions")
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


@pytest.mark.parametrize("rotated", [False, True])
def test_it_is_an_operator_that_compiles(rotated: bool) -> None:
    shape = (1, 2, 2, 70, 8, 40)
    inputs = made(shape)
    rotation = RotaryEmbedding(100.0, 8, 70).rotation(torch.arange(70)).unsqueeze(0)
    places = (40, None, rotation if rotated else None)
    torch.library.opcheck(torch.ops.lmlab.blocked_attention, (*inputs, *places))
    out = blocked_attention(*inputs, *places)
    compiled = torch.compile(blocked_attention, backend="aot_eager", fullgraph=True)
    ours = compiled(*inputs, *places)
    assert torch.equal(ours, out)
    for mine, other in zip(gradients(ours, inputs), gradients(out, inputs), strict=True):
        assert torch.equal(mine, other)


def test_scores_are_float32_under_autocast() -> None:
    inputs = tuple(8 * x.detach().bfloat16() for x in made((2, 2, 2, 40, 8, None)))
    alone = blocked_attention(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(blocked_attention(*inputs), alone)
