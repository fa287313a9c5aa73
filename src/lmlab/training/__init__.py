"""The training loop and what it needs."""

from typing import TYPE_CHECKING

from lmlab.lazy import lazy_exports

if TYPE_CHECKING:
    from lmlab.training.checkpoint import load_checkpoint, save_checkpoint
    from lmlab.training.loop import train
    from lmlab.training.losses import cross_entropy

__all__ = ["cross_entropy", "load_checkpoint", "save_checkpoint", "train"]

__getattr__ = lazy_exports(
    __name__,
    {
        "checkpoint": ("load_checkpoint", "save_checkpoint"),
        "loop": ("train",),
        "losses": ("cross_entropy",),
    },
)
