"""DPO and IPO against formulas worked by hand."""

import math

import pytest
import torch

from lmlab.alignment.preference import dpo_loss, ipo_loss


def test_dpo_by_hand() -> None:
    arguments = [torch.tensor([value]) for value in (-4.0, -7.0, -5.0, -6.0)]
    got = dpo_loss(*arguments, beta=0.5)
    margin = 0.5 * ((-4 - -5) - (-7 - -6))
    assert got.losses.item() == pytest.approx(math.log(1 + math.exp(-margin)))
    assert (got.chosen_rewards.item(), got.rejected_rewards.item()) == (0.5, -0.5)


def test_the_gradient_of_dpo_by_hand() -> None:
    """-beta sigmoid(rejected reward - chosen reward) for the chosen response (equation 7)."""
    torch.manual_seed(0)
    chosen, rejected, *reference = torch.randn(4, 5).unbind()
    chosen, rejected = chosen.requires_grad_(), rejected.requires_grad_()
    got = dpo_loss(chosen, rejected, *reference, beta=0.3)
    found = torch.autograd.grad(got.losses.sum(), (chosen, rejected))
    expected = -0.3 * torch.sigmoid(got.rejected_rewards - got.chosen_rewards)
    torch.testing.assert_close(found, (expected, -expected))


def test_a_large_margin_does_not_overflow() -> None:
    far = torch.tensor([1e4]), torch.tensor([-1e4]), torch.zeros(1), torch.zeros(1)
    assert dpo_loss(*far, beta=1.0).losses.item() == 0
    assert dpo_loss(far[1], far[0], *far[2:], beta=1.0).losses.item() == 2e4


def test_ipo_by_hand() -> None:
    arguments = [torch.tensor([value]) for value in (-1.0, -2.0, -1.5, -1.0)]
    got = ipo_loss(*arguments, beta=0.1)
    assert got.losses.item() == pytest.approx((0.5 + 1.0 - 5) ** 2)
