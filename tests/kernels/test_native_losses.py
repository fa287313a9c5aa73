"""Losses of the native core against their definition in float64, with each set of instructions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmlab.kernels import native

EVERY = pytest.mark.parametrize("instructions", native.INSTRUCTIONS)


def computed(
    logits: Tensor, targets: Tensor, z_loss: float, smoothing: float, instructions: str
) -> tuple[Tensor, Tensor]:
    terms, grads = native.token_losses(
        logits, targets, z_loss, smoothing, gradient=True, instructions=instructions
    )
    assert grads is not None
    assert grads.dtype == logits.dtype
    return terms, grads


def definition(
    logits: Tensor, targets: Tensor, z_loss: float, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Return terms (rows, 3) and gradients, by cross-entropy with all of torch's own functions."""
    x = logits.double().requires_grad_()
    log_z = torch.logsumexp(x, dim=-1)
    aims = x[torch.arange(len(x)), targets]
    terms = [log_z - aims, z_loss * log_z**2, smoothing * (aims - x.mean(dim=-1))]
    (grads,) = torch.autograd.grad(sum(terms).sum(), x)  # type: ignore[union-attr]
    return torch.stack(terms, dim=-1).detach(), grads


@EVERY
@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(0, 5),
    vocab=st.integers(1, 70),
    dtype=st.sampled_from(native.DTYPES),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
    z_loss=st.sampled_from([0.0, 1e-4, 0.3]),
    smoothing=st.sampled_from([0.0, 0.1, 0.9]),
    seed=st.integers(0, 2**16),
)
def test_terms_and_gradients_are_those_of_the_definition(
    instructions: str,
    rows: int,
    vocab: int,
    dtype: torch.dtype,
    scale: float,
    z_loss: float,
    smoothing: float,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(rows, vocab, generator=generator) * scale + scale).to(dtype)
    targets = torch.randint(0, vocab, (rows,), generator=generator)
    terms, grads = computed(logits, targets, z_loss, smoothing, instructions)
    expected_terms, expected = definition(logits, targets, z_loss, smoothing)
    torch.testing.assert_close(terms.double(), expected_terms, rtol=1e-5, atol=1e-5)
    rounding = 2**-8 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(grads.double(), expected, rtol=rounding, atol=3e-6)


@EVERY
def test_a_vocabulary_of_real_size(instructions: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 50_257, generator=generator) * 4
    targets = torch.randint(0, 50_257, (4,), generator=generator)
    terms, grads = computed(logits, targets, 1e-4, 0.1, instructions)
    expected_terms, expected = definition(logits, targets, 1e-4, 0.1)
    torch.testing.assert_close(terms.double(), expected_terms, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(grads.double(), expected, rtol=1e-5, atol=1e-9)


@EVERY
@pytest.mark.parametrize("dtype", native.DTYPES)
def test_extreme_logits(instructions: str, dtype: torch.dtype) -> None:
    infinite = math.inf
    rows = [[1e4, 1e4, 1e4], [-infinite, 0, 0], [-1e4, 1e4, 0], [math.nan, 0, 0], [infinite, 0, 0]]
    terms, grads = computed(
        torch.tensor(rows, dtype=dtype), torch.tensor([1] * 5), 0.0, 0.0, instructions
    )
    losses = terms[:, 0].tolist()
    assert losses[:3] == pytest.approx([math.log(3), math.log(2), 0])
    expected = torch.tensor([[1 / 3, -2 / 3, 1 / 3], [0, -0.5, 0.5], [0, 0, 0]])
    torch.testing.assert_close(grads[:3], expected.to(dtype), rtol=2**-8, atol=0)
    assert all(map(math.isnan, losses[3:]))
    assert grads[3:].isnan().any(dim=-1).all()


@EVERY
def test_rows_and_threads_do_not_matter(instructions: str) -> None:
    logits = torch.randn(9, 1001, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(9)
    together = computed(logits, targets, 1e-3, 0.1, instructions)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert all(map(torch.equal, computed(logits, targets, 1e-3, 0.1, instructions), together))
    finally:
        torch.set_num_threads(threads)
    for row in range(9):
        alone = computed(logits[row : row + 1], targets[row : row + 1], 1e-3, 0.1, instructions)
        assert all(torch.equal(a[0], b[row]) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("target", [-1, 3])
def test_a_target_that_is_no_logit(target: int) -> None:
    with pytest.raises(IndexError, match=f"target {target} is not one of 3 logits"):
        native.token_losses(torch.zeros(2, 3), torch.tensor([0, target]), 0.0, 0.0, gradient=False)
