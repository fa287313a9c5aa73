"""A short training run in memory."""

from contextlib import nullcontext

import torch

from lmlab.model import build
from lmlab.optim import build_optimizer
from lmlab.training.device import DTYPES
from lmlab.training.kernels import set_precision, use_kernels
from lmlab.training.objective import NextToken
from tests_support import TINY, composed

STEPS = 4


def losses(*overrides: str, precision: str = "fp32", device: str = "cpu") -> list[float]:
    """Return the loss of each step on one fixed batch."""
    config = composed(*TINY, *overrides, "optimizer=adamw", "lr=0.01")
    torch.manual_seed(0)
    model = build(config.model, 64).to(device)
    set_precision(model, precision)
    objective = NextToken(model, z_loss=1e-3, label_smoothing=0.1)
    use_kernels(objective, config.trainer.kernels, torch.device(device))
    optimizer = build_optimizer(
        config.optimizer, model, width_multiplier=config.model.width_multiplier
    )
    ids = torch.randint(64, (2, config.model.context_length + 1)).to(device)
    found = []
    for _ in range(STEPS):
        low = precision != "fp32"
        with torch.autocast(device, dtype=DTYPES[precision]) if low else nullcontext():
            total, terms = objective(ids[:, :-1], ids[:, 1:])
        optimizer.zero_grad()
        (total / ids[:, 1:].numel()).backward()
        optimizer.step()
        found.append(terms["loss"].item() / ids[:, 1:].numel())
    return found
