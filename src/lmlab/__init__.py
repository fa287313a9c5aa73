"""lmlab: a Hydra-configured laboratory for training language models from scratch.

`lmlab.load(RUN)` loads a trained run, `lmlab.compose("model=small", "lr=3e-4")` a configuration.
"""

from typing import TYPE_CHECKING

from lmlab.lazy import lazy_exports

if TYPE_CHECKING:
    from lmlab.config import RunConfig
    from lmlab.hydra_app import compose
    from lmlab.loading import TrainedRun, load

__all__ = ["RunConfig", "TrainedRun", "compose", "load"]

__getattr__ = lazy_exports(
    __name__,
    {"hydra_app": ("compose",), "config": ("RunConfig",), "loading": ("TrainedRun", "load")},
)


def __dir__() -> list[str]:
    return __all__
