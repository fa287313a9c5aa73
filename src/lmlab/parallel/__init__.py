"""Strategies of training one model with several processes, behind one interface (`Strategy`)."""

from typing import TYPE_CHECKING

from lmlab.lazy import lazy_exports

if TYPE_CHECKING:
    from lmlab.parallel.build import build_strategy
    from lmlab.parallel.strategy import Strategy

__all__ = ["Strategy", "build_strategy"]

__getattr__ = lazy_exports(__name__, {"build": ("build_strategy",), "strategy": ("Strategy",)})
