"""From text to batches: corpora, token shards, sampling."""

from typing import TYPE_CHECKING

from lmlab.lazy import lazy_exports

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

__getattr__ = lazy_exports(
    __name__,
    {
        "batches": ("Batches", "get_batch", "validation_starts"),
        "preparation": ("Meta", "Prepared", "prepare", "require_context"),
    },
)
