"""What is minimised beside the cross-entropy."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from lmlab.model import build
from lmlab.optim import SGD
from lmlab.training.objective import NextToken
from lmlab.training.step import StepStats, optimize_step
from tests_support import composed


def stepped(
    micro_batch_size: int | None, z_loss: float, *choices: str
) -> tuple[StepStats, list[Tensor]]:
    torch.manual_seed(0)
    shape = ("model.d_model=16", "model.num_heads=2", "model.num_layers=1", "model.d_ff=16")
    model = build(composed(*shape, *choices).model, 13)
    batch = (torch.randint(13, (4, 8)), torch.randint(13, (4, 8)))
    stats = optimize_step(
        NextToken(model, z_loss=z_loss),
        SGD(model.parameters(), lr=0.1),
        batch,
        micro_batch_size=micro_batch_size,
        max_grad_norm=None,
        autocast=nullcontext,
        device=torch.device("cpu"),
    )
    return stats, [p.detach() for p in model.parameters()]


def test_penalties_are_minimised_and_told_apart() -> None:
    plain, without = stepped(None, 0.0)
    with_z, moved = stepped(None, 0.1)
    assert list(plain.terms) == ["loss"]
    torch.testing.assert_close(plain.terms["loss"], with_z.terms["loss"])  # before the step
    assert with_z.terms["z_loss"].item() > 0
    assert any(not torch.equal(a, b) for a, b in zip(without, moved, strict=True))


def test_what_the_model_adds_is_minimised_too() -> None:
    weight = "model.ffn.load_balancing_loss"
    light, without = stepped(None, 0.0, "model/ffn=moe", f"{weight}=0.0")
    heavy, moved = stepped(None, 0.0, "model/ffn=moe", f"{weight}=10.0")
    torch.testing.assert_close(light.terms["loss"], heavy.terms["loss"])
    assert heavy.terms["moe/load_balancing_loss"].item() > 0
    assert any(not torch.equal(a, b) for a, b in zip(without, moved, strict=True))


@pytest.mark.parametrize("size", [1, 2])
def test_accumulation_changes_no_penalty(size: int) -> None:
    (whole, expected), (parts, parameters) = stepped(None, 0.1), stepped(size, 0.1)
    torch.testing.assert_close(whole.terms, parts.terms)
    for a, b in zip(expected, parameters, strict=True):
        torch.testing.assert_close(a, b)
