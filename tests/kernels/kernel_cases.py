"""Inputs and references that the tests of kernels share."""

import os
from collections.abc import Callable

import torch
from torch import Tensor

from lmlab.model.layers import scaled_dot_product_attention

Inputs = tuple[Tensor, Tensor, Tensor]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def draw(
    shape: tuple[int, ...],
    keys: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Inputs:
    """Return q of a shape, and k and v of another or the same one, with gradients."""
    torch.manual_seed(0)
    shapes = (shape, keys or shape, keys or shape)
    q, k, v = (torch.randn(s, device=device).to(dtype).requires_grad_() for s in shapes)
    return q, k, v


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Return attention by its formula in float64, and the log-sum-exp of the scores."""
    q, k, v = (x.double() for x in (q, k, v))
    if k.shape[:-2] != q.shape[:-2]:
        k, v = (x.repeat_interleave(q.shape[-3] // x.shape[-3], dim=-3) for x in (k, v))
    i = torch.arange(q.shape[-2], device=q.device).unsqueeze(-1)
    j = torch.arange(k.shape[-2], device=q.device)
    mask = (j <= i) if causal else torch.ones_like(j <= i)
    if window is not None:
        mask = mask & (i - j < window)
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    lse = scores.masked_fill(~mask, -torch.inf).logsumexp(dim=-1)
    return scaled_dot_product_attention(q, k, v, mask, logit_softcap=softcap), lse


def assert_attention_equals_the_formula(
    attend: Callable[..., tuple[Tensor, Tensor]],
    inputs: Inputs,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
) -> None:
    """Compare output, L and gradients, at 1e-5 in float32 and 1e-2 in shorter types."""
    tolerance = 1e-5 if inputs[0].dtype == torch.float32 else 1e-2
    out, lse = attend(*inputs, causal, window, softcap)
    wanted_out, wanted_lse = reference(*inputs, causal, window, softcap)
    assert out.dtype == inputs[0].dtype
    assert lse.dtype == torch.float32
    close = {"atol": tolerance, "rtol": tolerance, "check_dtype": False}
    torch.testing.assert_close(out, wanted_out, **close)
    torch.testing.assert_close(lse, wanted_lse, **close)
    grad = torch.randn_like(out)
    ours = torch.autograd.grad(out, inputs, grad)
    theirs = torch.autograd.grad(wanted_out, inputs, grad.double())
    for name, mine, wanted in zip("qkv", ours, theirs, strict=True):
        assert mine.dtype == inputs[0].dtype
        # A gradient sums over up to N rounded terms.
        scale = max(1.0, wanted.abs().max().item())
        torch.testing.assert_close(
            mine, wanted, atol=tolerance * scale, rtol=tolerance, check_dtype=False,
            msg=lambda text, name=name: f"gradient of {name}: {text}",
        )  # fmt: skip
