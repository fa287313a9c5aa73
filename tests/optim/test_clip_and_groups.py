"""Clipping against torch's, and every parameter in exactly one group."""

import pytest
import torch
from torch import nn

from lmlab.model import build
from lmlab.optim import clip_gradients, parameter_groups
from tests_support import composed


@pytest.mark.parametrize("max_norm", [0.5, 1.0, 100.0])
def test_clipping_equals_torch(max_norm: float) -> None:
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.zeros(shape)) for shape in ((4, 5), (3,), (2, 2, 2))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    for a, b in zip(ours, theirs, strict=True):
        a.grad = torch.randn(a.shape)
        b.grad = a.grad.clone()
    norm = clip_gradients([*ours, nn.Parameter(torch.zeros(1))], max_norm)
    torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(theirs, max_norm))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=0)


def test_below_the_limit_nothing_changes() -> None:
    p = nn.Parameter(torch.zeros(3))
    p.grad = torch.tensor([0.1, 0.2, 0.2])
    before = p.grad.clone()
    assert clip_gradients([p], 1.0).item() == pytest.approx(0.3)
    assert torch.equal(p.grad, before)
    assert clip_gradients([p], None).item() == pytest.approx(0.3)
    assert torch.equal(p.grad, before)


@pytest.mark.parametrize("decay_embeddings", [False, True])
@pytest.mark.parametrize("tie", ["true", "false"])
def test_groups_cover_every_parameter_once(decay_embeddings: bool, tie: str) -> None:
    config = composed("model=tiny", f"model.tie_embeddings={tie}").model
    model = build(config, 300, device="meta")
    groups = parameter_groups(model, 0.1, decay_embeddings)
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1}
    decayed = {id(p) for p in groups[0]["params"]}
    for name, p in model.named_parameters():
        wanted = p.ndim >= 2 and (decay_embeddings or "embedding" not in name)
        assert (id(p) in decayed) == wanted, name
