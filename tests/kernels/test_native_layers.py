"""Layers of the native core against their definitions in float64, with each set of instructions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lmlab.kernels import native
from lmlab.model.ffn.glu import gated
from lmlab.model.norm import RMSNorm

EVERY = pytest.mark.parametrize("instructions", native.INSTRUCTIONS)
DTYPES = st.sampled_from(native.DTYPES)
SCALES = st.sampled_from([0.01, 1.0, 30.0])


def draw(*shape: int, dtype: torch.dtype, scale: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * scale).to(dtype)


def assert_near(ours: Tensor, exact: Tensor, size: float) -> None:
    """Compare to float64: numbers of `size` and smaller ones with the same rounding."""
    rounding = 2**-8 if ours.dtype == torch.bfloat16 else 2e-6
    torch.testing.assert_close(ours.double(), exact, rtol=rounding, atol=2e-6 * max(size, 1e-3))


@EVERY
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 5), st.integers(1, 70), DTYPES, SCALES, st.booleans(), st.integers(0, 99))
def test_gate(
    instructions: str,
    rows: int,
    width: int,
    dtype: torch.dtype,
    scale: float,
    parts: bool,
    seed: int,
) -> None:
    whole = draw(rows, 2 * width, dtype=dtype, scale=scale, seed=seed)
    gate, value = whole.split(width, dim=-1)
    if not parts:
        gate, value = gate.contiguous(), value.contiguous()
    grad = draw(rows, width, dtype=dtype, scale=1.0, seed=seed + 1)
    exact = [x.double().requires_grad_() for x in (gate, value)]
    expected = F.silu(exact[0]) * exact[1]
    expected_grads = torch.autograd.grad(expected, exact, grad.double())
    out = native.gate(gate, value, instructions)
    grads = native.gate_backward(grad, gate, value, instructions)
    assert_near(out, expected.detach(), scale**2)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        assert ours.dtype == dtype
        assert_near(ours, theirs, scale)


@EVERY
def test_a_gate_far_from_zero(instructions: str) -> None:
    gate = torch.tensor([[-200.0, -88.0, -30.0, 0.0, 30.0, 200.0, math.nan]])
    value, grad = torch.full_like(gate, 2.0), torch.ones_like(gate)
    out = native.gate(gate, value, instructions)
    gate_grad, value_grad = native.gate_backward(grad, gate, value, instructions)
    torch.testing.assert_close(out, 2 * F.silu(gate), equal_nan=True, rtol=1e-6, atol=1e-30)
    torch.testing.assert_close(value_grad, F.silu(gate), equal_nan=True, rtol=1e-6, atol=1e-30)
    expected = torch.tensor([[0.0, 0.0, 0.0, 1.0, 2.0, 2.0, math.nan]])
    torch.testing.assert_close(gate_grad, expected, equal_nan=True, rtol=1e-6, atol=1e-10)


@EVERY
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 70), st.integers(1, 70), DTYPES, SCALES, st.integers(0, 99))
def test_norm(
    instructions: str, rows: int, width: int, dtype: torch.dtype, scale: float, seed: int
) -> None:
    x = draw(rows, width, dtype=dtype, scale=scale, seed=seed)
    gain = draw(width, dtype=torch.float32, scale=1.0, seed=seed + 1)
    grad = draw(rows, width, dtype=dtype, scale=1.0, seed=seed + 2)
    exact, exact_gain = x.double().requires_grad_(), gain.double().requires_grad_()
    expected = F.rms_norm(exact, (width,), exact_gain, 1e-5)
    expected_grads = torch.autograd.grad(expected, (exact, exact_gain), grad.double())
    out, inverse = native.norm(x, gain, 1e-5, instructions)
    x_grad, gain_grad = native.norm_backward(grad, x, gain, inverse, instructions)
    assert out.dtype == x_grad.dtype == dtype
    assert_near(out, expected.detach(), 4)
    # A row of one number has a gradient of almost 0, the difference of two near 1 / |x|.
    assert_near(x_grad, expected_grads[0], 10 * float(inverse.max()) if rows else 1)
    assert_near(gain_grad, expected_grads[1], 4 * max(rows, 1))


@EVERY
def test_rows_and_threads_do_not_matter(instructions: str) -> None:
    x = draw(100, 33, dtype=torch.float32, scale=1.0, seed=0)
    gain, grad = torch.ones(33), draw(100, 33, dtype=torch.float32, scale=1.0, seed=1)

    def everything() -> tuple[Tensor, ...]:
        out, inverse = native.norm(x, gain, 1e-5, instructions)
        normed = native.norm_backward(grad, x, gain, inverse, instructions)
        gates = native.gate_backward(grad, x, out, instructions)
        return out, *normed, native.gate(x, out, instructions), *gates

    together = everything()
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert all(map(torch.equal, everything(), together))
    finally:
        torch.set_num_threads(threads)
    for row in (0, 40, 99):
        alone = native.norm(x[row : row + 1], gain, 1e-5, instructions)[0]
        assert torch.equal(alone[0], together[0][row])


@pytest.mark.parametrize(
    ("gate", "value"),
    [
        (torch.ones(2, 3), torch.ones(2, 4)),
        (torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bfloat16)),
        (torch.ones(2, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)),
    ],
)
def test_gates_that_do_not_fit_are_refused(gate: Tensor, value: Tensor) -> None:
    with pytest.raises((ValueError, RuntimeError), match="layer"):
        native.gate(gate, value)


def test_a_gain_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="gain"):
        native.norm(torch.ones(2, 3), torch.ones(4), 1e-5)


def test_modules_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their results and gradients are those without the native core."""
    x = draw(4, 6, 32, dtype=torch.float32, scale=1.0, seed=0).requires_grad_()
    norm = RMSNorm(32)
    torch.nn.init.normal_(norm.weight)

    def computed() -> tuple[Tensor, ...]:
        gate, value = norm(x).split(16, dim=-1)
        out = gated(F.silu, gate, value)
        return out, *torch.autograd.grad(out.square().sum(), (x, norm.weight))

    calls = []
    for name in ("gate", "gate_backward", "norm", "norm_backward"):
        kernel = getattr(native, name)

        def call(*args: object, name: str = name, kernel: object = kernel) -> object:
            calls.append(name)
            return kernel(*args)  # type: ignore[operator]

        monkeypatch.setattr(native, name, call)
    ours = computed()
    assert calls == ["norm", "gate", "gate_backward", "norm_backward"]
    monkeypatch.setattr(native, "computes", lambda *_: False)
    for mine, theirs in zip(ours, computed(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    assert len(calls) == 4
