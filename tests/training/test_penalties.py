"""What is minimised beside the cross-entropy."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from lmlab.model import build
from lmlab.optim import SGD
from lmlab.training.objective import Penalties, cross_entropy, z_loss
from lmlab.training.step import StepStats, optimize_step
from tests_support import composed


def test_z_loss_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0], [1000.0, 1000.0]]])
    normaliser = torch.tensor([2.0]).log()
    expected = (normaliser**2 + (1000 + normaliser) ** 2) / 2
    torch.testing.assert_close(z_loss(logits), expected.squeeze())
    assert z_loss(logits.bfloat16()).dtype == torch.float32


def stepped(micro_batch_size: int | None, weight: float) -> tuple[StepStats, list[Tensor]]:
    torch.manual_seed(0)
    shape = ("model.d_model=16", "model.num_heads=2", "model.num_layers=1", "model.d_ff=16")
    model = build(composed(*shape).model, 13)
    batch = (torch.randint(13, (4, 8)), torch.randint(13, (4, 8)))
    stats = optimize_step(
        model,
        SGD(model.parameters(), lr=0.1),
        cross_entropy,
        batch,
        micro_batch_size=micro_batch_size,
        max_grad_norm=None,
        autocast=nullcontext,
        device=torch.device("cpu"),
        penalties=Penalties(weight, model.auxiliary_losses),
    )
    return stats, [p.detach() for p in model.parameters()]


def test_penalties_are_minimised_and_told_apart() -> None:
    plain, without = stepped(None, 0.0)
    with_z, moved = stepped(None, 0.1)
    assert plain.penalties == {}
    torch.testing.assert_close(plain.loss, with_z.loss)  # cross-entropy alone, before the step
    assert with_z.penalties["z_loss"].item() > 0
    assert any(not torch.equal(a, b) for a, b in zip(without, moved, strict=True))


@pytest.mark.parametrize("size", [1, 2])
def test_accumulation_changes_no_penalty(size: int) -> None:
    (whole, expected), (parts, parameters) = stepped(None, 0.1), stepped(size, 0.1)
    torch.testing.assert_close(whole.penalties, parts.penalties)
    for a, b in zip(expected, parameters, strict=True):
        torch.testing.assert_close(a, b)
