"""Optimizers against torch's own."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lmlab.optim import SGD, AdamW

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def trajectories(ours: Make, theirs: Make, steps: int) -> tuple[list[nn.Parameter], ...]:
    """Run both from the same start on the same gradients; one parameter gets none at odd steps."""
    torch.manual_seed(0)
    start = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((5, 7), (3,), ())]
    unused = nn.Parameter(torch.randn(2, dtype=torch.float64))
    results = []
    for make in (ours, theirs):
        params = copy.deepcopy([*start, unused])
        optimizer = make(params)
        generator = torch.Generator().manual_seed(1)
        for step in range(steps):
            for i, p in enumerate(params[:-1]):
                gradient = torch.randn(p.shape, generator=generator, dtype=p.dtype)
                p.grad = None if i == 1 and step % 2 else gradient + p.detach()
            optimizer.step()
        results.append(params)
    return tuple(results)


@pytest.mark.parametrize("backend", ["foreach", "fused"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.95)])
def test_adamw_equals_torch_over_1000_steps(
    backend: Any, weight_decay: float, betas: tuple[float, float]
) -> None:
    options = {"lr": 1e-2, "betas": betas, "eps": 1e-8, "weight_decay": weight_decay}
    ours, theirs = trajectories(
        lambda p: AdamW(p, backend=backend, **options),
        lambda p: torch.optim.AdamW(p, **options),
        1000,
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_equals_torch(momentum: float, nesterov: bool) -> None:
    options = {"lr": 1e-2, "momentum": momentum, "nesterov": nesterov}
    ours, theirs = trajectories(
        lambda p: SGD(p, **options), lambda p: torch.optim.SGD(p, **options), 200
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_sgd_decay_is_decoupled() -> None:
    p = nn.Parameter(torch.tensor([2.0]))
    p.grad = torch.tensor([1.0])
    SGD([p], lr=0.1, weight_decay=0.5).step()
    assert p.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1)


def test_closure_is_called_with_gradients_on() -> None:
    p = nn.Parameter(torch.tensor([3.0]))
    for optimizer in (AdamW([p], lr=0.1), SGD([p], lr=0.1)):

        def closure() -> torch.Tensor:
            p.grad = None
            loss = (p**2).sum()
            loss.backward()
            return loss

        before = p.item()
        assert optimizer.step(closure).item() == pytest.approx(before**2)
        assert abs(p.item()) < abs(before)


def test_state_survives_saving() -> None:
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(4))
    q = nn.Parameter(p.detach().clone())
    a, b = AdamW([p]), AdamW([q])
    for step in range(6):
        if step == 3:
            b.load_state_dict(copy.deepcopy(a.state_dict()))
            q.data.copy_(p.data)
        gradient = torch.randn(4)
        p.grad, q.grad = gradient, gradient.clone()
        a.step()
        b.step()
    assert torch.equal(p, q)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: AdamW(p, lr=-1),
        lambda p: AdamW(p, betas=(1.0, 0.9)),
        lambda p: SGD(p, momentum=1.0),
        lambda p: SGD(p, nesterov=True),
    ],
)
def test_out_of_range_is_an_error(make: Make) -> None:
    with pytest.raises(ValueError, match=r"out of range|needs momentum"):
        make([nn.Parameter(torch.zeros(1))])
