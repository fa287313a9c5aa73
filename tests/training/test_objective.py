"""Cross-entropy against torch's."""

import pytest
import torch
from torch.nn import functional as F

from lmlab.training import cross_entropy


@pytest.mark.parametrize("scale", [1.0, 1000.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_cross_entropy_equals_torch(scale: float, reduction: str) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(3, 5, 11, dtype=torch.float32) * scale).requires_grad_()
    other = logits.detach().clone().requires_grad_()
    targets = torch.randint(0, 11, (3, 5))
    ours = cross_entropy(logits, targets, reduction)
    theirs = F.cross_entropy(other.flatten(0, 1), targets.flatten(), reduction=reduction)
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(logits.grad, other.grad)
    assert torch.isfinite(ours)


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits = torch.randn(2, 7).bfloat16()
    assert cross_entropy(logits, torch.tensor([1, 2])).dtype == torch.float32
