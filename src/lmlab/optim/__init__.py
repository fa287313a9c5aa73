"""Optimizers, schedules, parameter groups and gradient clipping."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

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


def _construct(cls: "type[Optimizer]", params: Iterable[Any], **kwargs: Any) -> "Optimizer":
    """Return an optimizer of a class over parameters or groups of them."""
    return cls(params, **kwargs)


def build_optimizer(
    config: "OptimizerConfig",
    model: "nn.Module",
    make: "Callable[..., Optimizer]" = _construct,
    width_multiplier: float = 1.0,
) -> "Optimizer":
    """Build the configured optimizer over all trained parameters of `model`.

    `make` takes the class, the parameter groups and the keyword arguments. `width_multiplier` is
    that of the model's configuration; learning rates follow it as in muP.
    """
    from lmlab.optim.adamw import AdamW
    from lmlab.optim.groups import lr_scales, parameter_groups
    from lmlab.optim.muon import Muon
    from lmlab.optim.sgd import SGD

    muon = config.kind == "muon"
    scales = lr_scales(config.kind, width_multiplier)
    groups = parameter_groups(model, config.weight_decay, config.decay_embeddings, muon, scales)
    for group in groups:
        group["lr"] = config.lr * group.get("lr_scale", 1.0)
    if config.kind == "adamw":
        betas = (config.beta1, config.beta2)
        return make(
            AdamW, groups, lr=config.lr, betas=betas, eps=config.eps, backend=config.backend
        )
    if config.kind == "muon":
        betas = (config.beta1, config.beta2)
        return make(
            Muon,
            groups,
            lr=config.lr,
            betas=betas,
            eps=config.eps,
            momentum=config.momentum,
            newton_schulz_steps=config.newton_schulz_steps,
        )
    return make(SGD, groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
