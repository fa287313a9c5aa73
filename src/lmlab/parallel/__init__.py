"""Strategies of training one model with several processes, behind one interface (`Strategy`)."""

from typing import TYPE_CHECKING

from lmlab.lazy import lazy_exports

if TYPE_CHECKING:
    from lmlab.parallel.build import build_strategy, model_parallel_size
    from lmlab.parallel.sharded_optimizer import ShardedOptimizer
    from lmlab.parallel.strategy import Strategy

__all__ = ["ShardedOptimizer", "Strategy", "build_strategy", "model_parallel_size"]

__getattr__ = lazy_exports(
    __name__,
    {
        "build": ("build_strategy", "model_parallel_size"),
        "sharded_optimizer": ("ShardedOptimizer",),
        "strategy": ("Strategy",),
    },
)
