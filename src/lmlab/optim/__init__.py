"""Optimizers, schedules, parameter groups and gradient clipping."""

from typing import TYPE_CHECKING

from lmlab.lazy import lazy_exports

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from lmlab.optim.adamw import AdamW
    from lmlab.optim.clip import clip_gradients
    from lmlab.optim.config import OptimizerConfig
    from lmlab.optim.groups import parameter_groups
    from lmlab.optim.muon import Muon
    from lmlab.optim.schedule import build_schedule, cosine_schedule
    from lmlab.optim.sgd import SGD

__all__ = [
    "SGD",
    "AdamW",
    "Muon",
    "build_optimizer",
    "build_schedule",
    "clip_gradients",
    "cosine_schedule",
    "parameter_groups",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "adamw": ("AdamW",),
        "muon": ("Muon",),
        "sgd": ("SGD",),
        "clip": ("clip_gradients",),
        "groups": ("parameter_groups",),
        "schedule": ("build_schedule", "cosine_schedule"),
    },
)


def build_optimizer(config: "OptimizerConfig", model: "nn.Module") -> "Optimizer":
    """Build the configured optimizer over all parameters of `model`."""
    from lmlab.optim.adamw import AdamW
    from lmlab.optim.groups import parameter_groups
    from lmlab.optim.muon import Muon
    from lmlab.optim.sgd import SGD

    muon = config.kind == "muon"
    groups = parameter_groups(model, config.weight_decay, config.decay_embeddings, muon)
    if config.kind == "adamw":
        betas = (config.beta1, config.beta2)
        return AdamW(groups, config.lr, betas, config.eps, backend=config.backend)
    if config.kind == "muon":
        betas = (config.beta1, config.beta2)
        return Muon(
            groups,
            config.lr,
            betas,
            config.eps,
            momentum=config.momentum,
            newton_schulz_steps=config.newton_schulz_steps,
        )
    return SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
