"""From text to batches: corpora, token shards, sampling."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmlab.data.batches import Batches, get_batch, validation_starts
    from lmlab.data.preparation import Meta, Prepared, prepare, require_context

__all__ = [
    "Batches",
    "Meta",
    "Prepared",
    "get_batch",
    "prepare",
    "require_context",
    "validation_starts",
]

_HOMES = {
    "batches": ("Batches", "get_batch", "validation_starts"),
    "preparation": ("Meta", "Prepared", "prepare", "require_context"),
}


def __getattr__(name: str) -> Any:
    # Lazily, so that importing lmlab.data.config loads neither numpy nor torch.
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
