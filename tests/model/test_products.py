"""bfloat16 by way of float32: the numbers of bfloat16, with torch's own kernels beside them."""

from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lmlab.model import build, products
from lmlab.training import throughput
from lmlab.training.objective import NextToken
from tests_support import composed

TINY = ("model=tiny", "tokenizer=byte", "model.d_model=32", "model.num_layers=2")
HALF_ULP = 2.0**-8
"""What rounding to bfloat16 changes, at most, as a share of the number."""


def amp() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "SLOW_BFLOAT16", True)


def test_a_product_of_bfloat16_is_the_exact_one_rounded(slow: None) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 7, 24, requires_grad=True)
    weight = torch.randn(16, 24, requires_grad=True)
    with amp():
        y = products.linear(x, weight)
    assert y.dtype == torch.bfloat16
    grad = torch.randn(3, 7, 16).bfloat16()
    y.backward(grad)
    a, w, g = (t.detach().bfloat16().double() for t in (x, weight, grad))
    exact = (a @ w.T, g @ w, torch.einsum("bto,bti->oi", g, a))
    assert x.grad is not None
    assert x.grad.dtype == weight.grad.dtype == torch.float32
    for ours, expected in zip((y, x.grad, weight.grad), exact, strict=True):
        torch.testing.assert_close(ours.double(), expected, rtol=1.001 * HALF_ULP, atol=1e-5)
    torch.testing.assert_close(weight.grad, exact[-1].float())  # not rounded
    assert torch.equal(x.grad, x.grad.bfloat16().float())


def test_float32_stays_as_it_is(slow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "FAST_ONEDNN", False)
    x, weight = torch.randn(5, 24), torch.randn(16, 24)
    assert torch.equal(products.linear(x, weight), x @ weight.T)
    assert torch.equal(products.upcast(torch.exp, x), x.exp())
    with torch.autocast("cpu", dtype=torch.float16):
        assert products.linear(x, weight).dtype == torch.float16


@pytest.mark.parametrize(
    "choices",
    [
        (),
        (
            "model/attention=sliding_window",
            "model.attention.window=9",
            "model.attention.num_kv_heads=1",
            "model.tie_embeddings=true",
        ),
        ("model/ffn=moe",),
    ],
    ids=["plain", "window, few key heads, tied", "experts"],
)
@pytest.mark.parametrize("form", ["plain", "chunked", "checkpointed", "compiled"])
def test_gradients_are_as_close_to_float32s_as_torchs(
    choices: tuple[str, ...], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.randint(0, 257, (2, 33), generator=torch.Generator().manual_seed(0))

    def gradients(form: str, precision: AbstractContextManager[object]) -> list[Tensor]:
        torch.manual_seed(0)
        model = build(composed(*TINY, *choices).model, 257)
        model.checkpoint_activations = form == "checkpointed"
        objective = NextToken(model, chunk_tokens=16 if form == "chunked" else None)
        run = torch.compile(objective) if form == "compiled" else objective
        with precision:
            loss, _ = run(ids[:, :-1], ids[:, 1:])
        loss.backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    def error(grads: list[Tensor]) -> float:
        differences = [(g - e).square().sum() for g, e in zip(grads, exact, strict=True)]
        return (torch.stack(differences).sum() / sum(e.square().sum() for e in exact)).sqrt().item()

    exact = gradients("plain", nullcontext())
    monkeypatch.setattr(products, "SLOW_BFLOAT16", False)
    torchs = error(gradients("plain", amp()))
    monkeypatch.setattr(products, "SLOW_BFLOAT16", True)
    ours = error(gradients(form, amp()))
    assert 1e-4 < ours < 1.1 * torchs


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
@pytest.mark.parametrize("d_in", [1, 48, 1344])
def test_without_gradients_a_row_does_not_depend_on_the_others(d_in: int) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(70, d_in), torch.randn(33, d_in)
    with torch.no_grad():
        together = products.linear(x, weight)
        alone = torch.cat([products.linear(row, weight) for row in x.split(1)])
    assert torch.equal(together, alone)
    torch.testing.assert_close(together, x @ weight.mT, atol=1e-4, rtol=1e-5)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
@pytest.mark.parametrize("form", ["plain", "chunked", "checkpointed", "compiled", "tied"])
def test_training_by_onednn_equals_torchs_own(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.randint(0, 257, (2, 33), generator=torch.Generator().manual_seed(0))
    tied = (f"model.tie_embeddings={str(form == 'tied').lower()}",)

    def trained(onednn: bool, form: str) -> list[Tensor]:
        monkeypatch.setattr(products, "FAST_ONEDNN", onednn)
        torch.manual_seed(0)
        model = build(composed(*TINY, *tied).model, 257)
        model.checkpoint_activations = form == "checkpointed"
        objective = NextToken(model, chunk_tokens=16 if form == "chunked" else None)
        run = torch.compile(objective, fullgraph=True) if form == "compiled" else objective
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            loss, _ = run(ids[:, :-1], ids[:, 1:])
            loss.backward()
        used = any(event.key == "lmlab::onednn_product" for event in profiler.key_averages())
        assert used == onednn
        return [loss, *(p.grad for p in model.parameters() if p.grad is not None)]

    for ours, torchs in zip(trained(True, form), trained(False, "plain"), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-5)


def test_flops_of_training_are_counted_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "FAST_ONEDNN", True)
    x, weight = torch.randn(5, 24, requires_grad=True), torch.randn(16, 24, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        products.linear(x, weight).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 5 * 24 * 16


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
def test_the_peak_is_that_of_the_products_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "FAST_ONEDNN", True)
    monkeypatch.setattr(throughput, "SECONDS", 0.001)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        throughput.measure_peak(torch.device("cpu"), "fp32")
    names = {event.key for event in profiler.key_averages()}
    assert "lmlab::onednn_product" in names
    assert "aten::mm" not in names
