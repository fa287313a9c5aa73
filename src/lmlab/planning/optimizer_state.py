"""Bytes that an optimizer keeps, and those that its update needs besides."""

from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lmlab.optim import build_optimizer
from lmlab.optim.config import OptimizerConfig
from lmlab.planning.live import LiveBytes, fake


@dataclass(frozen=True)
class OptimizerBytes:
    """What an optimizer holds of a whole model, in bytes."""

    state: int
    """Kept from step to step."""
    divided: int
    """Most that the update of elements needs besides; less for a part of the elements."""
    whole: int
    """Most that updates of whole matrices need besides, however few elements a device owns."""


def optimizer_bytes(config: OptimizerConfig, model: nn.Module) -> OptimizerBytes:
    """Run two steps of an optimizer on fake tensors and return the bytes that they need.

    The model is on the meta device, and has fake tensors afterwards.
    """
    with FakeTensorMode():
        fake(model)
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)
        optimizer = build_optimizer(config, model)
        groups = optimizer.param_groups
        with LiveBytes(model) as live:
            for parameter in model.parameters():
                assert parameter.grad is not None
                live.ignore(parameter.grad)
            optimizer.step()
            state = live.now
            most = {False: 0, True: 0}
            for group in groups:
                optimizer.param_groups = [group]
                live.restart()
                optimizer.step()
                matrices = group.get("muon", False)
                most[matrices] = max(most[matrices], live.peak - state)
    return OptimizerBytes(state, divided=most[False], whole=most[True])
