"""Mixture of experts against one token at a time, by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from lmlab.model import build
from lmlab.model.ffn.config import MoEConfig
from lmlab.model.ffn.experts import groupable, grouped_experts, joined_experts, looped_experts
from lmlab.model.ffn.glu import GATES
from lmlab.model.ffn.moe import MoE
from lmlab.model.products import multiplies_by_torch
from lmlab.training.objective import NextToken
from lmlab.training.runtime import Runtime
from lmlab.training.step import optimize_step
from tests_support import composed


def configured(**changes: object) -> MoEConfig:
    values: dict[str, object] = {
        "kind": "moe",
        "activation": "silu",
        "num_experts": 5,
        "top_k": 2,
        "granularity": 1,
        "shared_experts": 0,
        "router_softmax": "after",
        "load_balancing_loss": 0.01,
        "router_z_loss": 0.001,
    }
    return MoEConfig.model_validate(values | changes)


def by_hand(moe: MoE, u: Tensor, softmax: str) -> Tensor:
    """Return the output for one token, from the formula."""
    logits = torch.stack([u @ e for e in moe.centroids])
    chosen = sorted(range(len(logits)), key=lambda i: -logits[i].item())[: moe.top_k]
    over = range(len(logits)) if softmax == "before" else chosen
    total = sum(logits[i].exp() for i in over)
    out = torch.zeros_like(u)
    for i in chosen:
        hidden = F.silu(moe.w1[i] @ u) * (moe.w3[i] @ u)
        out = out + logits[i].exp() / total * (moe.w2[i] @ hidden)
    return out if moe.shared is None else out + moe.shared(u)


@pytest.mark.parametrize("softmax", ["before", "after"])
@pytest.mark.parametrize("granularity", [1, 2])
@pytest.mark.parametrize("shared", [0, 1, 2])
def test_every_token_gets_its_experts(softmax: str, granularity: int, shared: int) -> None:
    torch.manual_seed(0)
    config = configured(router_softmax=softmax, granularity=granularity, shared_experts=shared)
    moe = MoE(config, 8, 12)
    assert moe.w1.shape == (5 * granularity, 12 // granularity, 8)
    assert moe.top_k == 2 * granularity
    x = torch.randn(3, 4, 8, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    out = moe(x)
    expected = torch.stack([by_hand(moe, u, softmax) for u in other.view(-1, 8)]).view_as(x)
    torch.testing.assert_close(out, expected)

    weights = torch.randn_like(out)
    parameters = list(moe.parameters())
    ours = torch.autograd.grad((out * weights).sum(), [x, *parameters])
    theirs = torch.autograd.grad((expected * weights).sum(), [other, *parameters])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_no_token_is_dropped_when_all_choose_the_same() -> None:
    torch.manual_seed(0)
    moe = MoE(configured(top_k=1, router_softmax="before"), 8, 12)
    with torch.no_grad():
        moe.centroids.zero_()
        moe.centroids[3] = 1.0
    x = torch.rand(2, 50, 8) + 0.1
    expected = torch.stack([by_hand(moe, u, "before") for u in x.view(-1, 8)]).view_as(x)
    torch.testing.assert_close(moe(x), expected)
    assert moe.routing is not None
    assert moe.routing.load.tolist() == [0, 0, 0, 1, 0]
    assert moe.routing.balance > 4.5  # nearly num_experts, the worst
    moe.w1.grad = None
    moe(x).sum().backward()
    assert moe.w1.grad is not None
    assert moe.w1.grad[[0, 1, 2, 4]].abs().max() == 0


def test_losses_of_the_router_by_hand() -> None:
    torch.manual_seed(0)
    moe = MoE(configured(), 8, 12)
    x = torch.randn(2, 6, 8)
    moe(x)
    assert moe.routing is not None
    logits = x.view(-1, 8) @ moe.centroids.T
    load = F.one_hot(logits.topk(2).indices, 5).sum(dim=(0, 1)) / 24
    torch.testing.assert_close(moe.routing.load, load)
    balance = 5 * (load * logits.softmax(dim=-1).mean(dim=0)).sum()
    torch.testing.assert_close(moe.routing.balance, balance)
    torch.testing.assert_close(moe.routing.z, logits.exp().sum(dim=-1).log().square().mean())
    balance.backward()
    assert moe.centroids.grad is not None
    assert moe.centroids.grad.abs().max() > 0


@pytest.mark.parametrize("real", [(6, 2), (0, 5), (0, 0)])
def test_padding_does_not_count_in_losses_of_the_router(real: tuple[int, int]) -> None:
    torch.manual_seed(0)
    moe = MoE(configured(), 8, 12)
    x = torch.randn(2, 6, 8)
    moe.counted = torch.arange(6) < torch.tensor(real)[:, None]
    out = moe(x)
    padded = moe.routing
    assert padded is not None
    moe.counted = None
    torch.testing.assert_close(out, moe(x))
    logits = x.view(-1, 8) @ moe.centroids.T
    if not sum(real):
        assert padded.balance == padded.z == 0
        return
    mask = torch.arange(6) < torch.tensor(real)[:, None]
    theirs = load_balancing_loss_func((logits,), 5, 2, mask.long())
    torch.testing.assert_close(padded.balance, theirs / 2)  # which sums over the two choices
    moe(x[mask])
    assert moe.routing is not None
    torch.testing.assert_close(padded, moe.routing)


def test_the_model_reports_losses_and_loads() -> None:
    torch.manual_seed(0)
    model = build(composed("model/ffn=moe", "model.d_model=24", "model.num_layers=2").model, 11)
    assert model.auxiliary_losses() == {}
    model(torch.randint(11, (2, 9)))
    losses, metrics = model.auxiliary_losses(), model.take_metrics()
    moes = [module for module in model.modules() if isinstance(module, MoE)]
    routings = [moe.routing for moe in moes]
    balance = sum(r.balance for r in routings if r is not None) / 2
    torch.testing.assert_close(losses["moe/load_balancing_loss"], 0.01 * balance)
    assert len(metrics) == 2 * 8 + 1
    for layer in range(2):
        loads = [metrics[f"moe/load/layer_{layer}/expert_{i}"] for i in range(8)]
        assert sum(loads).item() == pytest.approx(1)
    assert 1 <= metrics["moe/largest_load"] <= 8

    before = moes[0].routing
    model.eval()
    model(torch.randint(11, (2, 9)))
    assert moes[0].routing is before  # an evaluation is not what was trained on


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_loads_are_those_of_all_micro_batches_of_a_step(checkpointed: bool, compiled: bool) -> None:
    torch.manual_seed(0)
    model = build(composed("model/ffn=moe", "model.d_model=24", "model.num_layers=2").model, 11)
    model.checkpoint_activations = checkpointed
    objective = NextToken(model)
    called = torch.compile(objective, backend="eager") if compiled else objective
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def loads(ids: Tensor, micro_batch_size: int | None) -> list[float]:
        optimize_step(
            called,
            optimizer,
            (ids, ids),
            ids.numel(),
            Runtime(torch.device("cpu")),
            micro_batch_size=micro_batch_size,
        )
        return [value.item() for value in model.take_metrics().values()]

    steps = [torch.randint(11, (4, 9)) for _ in range(2)]
    whole = [loads(ids, None) for ids in steps]
    assert whole[0] != whole[1]
    for size in (1, 2):
        for ids, expected in zip(steps, whole, strict=True):
            assert loads(ids, size) == pytest.approx(expected)


@pytest.mark.parametrize("counts", [[3, 0, 5, 1], [9, 0, 0, 0], [2, 3, 2, 2]])
def test_grouped_products_equal_the_loop(counts: list[int]) -> None:
    torch.manual_seed(0)
    x, activation = torch.randn(9, 8), GATES["silu"]
    w1, w3, w2 = torch.randn(4, 16, 8), torch.randn(4, 16, 8), torch.randn(4, 8, 16)

    def results(function: Callable[..., Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
        inputs = [t.to(dtype, copy=True).requires_grad_() for t in (x, w1, w2, w3)]
        out = function(inputs[0], torch.tensor(counts), *inputs[1:], activation)
        return out.detach(), *torch.autograd.grad(out.square().sum(), inputs)

    exact = results(looped_experts, torch.float64)
    for a, b in zip(exact, results(joined_experts, torch.float64), strict=True):
        torch.testing.assert_close(a, b)
    for function in (looped_experts, grouped_experts, joined_experts):
        for a, b in zip(exact, results(function, torch.float32), strict=True):
            torch.testing.assert_close(a.float(), b, atol=3e-6 * float(a.abs().max()), rtol=0)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_joined_experts_train_as_the_loop(
    precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    config = composed("model/ffn=moe").model.ffn
    assert isinstance(config, MoEConfig)
    moe, x = MoE(config, 32, 64), torch.randn(3, 40, 32)
    results, called = [], []

    def joined(*args: Any) -> Tensor:
        called.append(1)
        return joined_experts(*args)

    monkeypatch.setattr("lmlab.model.ffn.moe.joined_experts", joined)
    for by_loop in (False, True):
        if by_loop:
            monkeypatch.setattr("lmlab.model.ffn.moe.joinable", lambda *args: False)
        moe.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            out = moe(x)
        out.float().square().mean().backward()
        results.append([out, *(p.grad for p in moe.parameters() if p.grad is not None)])
    assert len(called) == multiplies_by_torch(x.device, precision)
    tolerance = 1e-6 if precision == torch.float32 else 2e-2
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("d_model", "width"), [(64, 64), (100, 64), (64, 18), (8, 4)])
def test_widths_that_grouped_products_refuse_are_known_before(d_model: int, width: int) -> None:
    x, up, down = torch.zeros(8, d_model), (2, width, d_model), (2, d_model, width)
    w1, w2, w3 = torch.zeros(*up), torch.zeros(*down), torch.zeros(*up)
    counts = torch.tensor([4, 4])
    with torch.autocast("cpu", torch.bfloat16):
        if groupable(x, w2):
            grouped_experts(x, counts, w1, w2, w3, GATES["silu"])
        else:
            with pytest.raises(RuntimeError, match="multiple of 16 bytes"):
                grouped_experts(x, counts, w1, w2, w3, GATES["silu"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_types_that_a_compiled_grouped_product_refuses_are_known_before(
    dtype: torch.dtype,
) -> None:
    with FakeTensorMode():  # which a compiler runs, whatever the device
        x, w1, w2 = torch.empty(8, 16), torch.empty(2, 32, 16), torch.empty(2, 16, 32)
        counts = torch.empty(2, dtype=torch.long)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            if groupable(x, w2):
                grouped_experts(x, counts, w1, w2, w1, GATES["silu"])
            else:
                with pytest.raises(RuntimeError, match="Expected inputs of BF16 type"):
                    grouped_experts(x, counts, w1, w2, w1, GATES["silu"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("width", [16, 18])
def test_experts_of_any_width_train_on_cuda(width: int) -> None:
    torch.manual_seed(0)
    moe = MoE(configured(), 24, width)
    x = torch.randn(2, 6, 24)
    expected = moe(x)
    moe, x = moe.cuda(), x.cuda()
    torch.testing.assert_close(moe(x).cpu(), expected, atol=1e-2, rtol=1e-2)
    with torch.autocast("cuda", torch.bfloat16):
        moe(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in moe.parameters())
