"""Bytes that an optimizer keeps, and those that its update needs besides."""

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lmlab.optim import build_optimizer
from lmlab.optim.config import OptimizerConfig
from lmlab.planning.live import LiveBytes, fake


def optimizer_bytes(config: OptimizerConfig, model: nn.Module) -> tuple[int, int]:
    """Return the bytes of the optimizer's state and of the most that a step allocates besides.

    The model is on the meta device, and has fake tensors afterwards.
    """
    with FakeTensorMode():
        fake(model)
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)
        optimizer = build_optimizer(config, model)
        with LiveBytes(model) as live:
            for parameter in model.parameters():
                assert parameter.grad is not None
                live.ignore(parameter.grad)
            optimizer.step()
            state = live.now
            live.restart()
            optimizer.step()
            return state, live.peak - state
