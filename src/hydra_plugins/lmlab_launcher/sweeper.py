"""The sweeper `grid`: every combination of the axes."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, read_write

from lmlab.errors import UserError

LOCAL = "hydra_plugins.lmlab_launcher.launchers.LocalLauncher"


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper: one batch, and each job is composed once, by the launcher."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Create the launcher: `local` unless the command line or the sweep's file names one.

        The primary configuration cannot name it, as its choice would override a sweep's file.
        """
        if config.hydra.runtime.choices["hydra/launcher"] == "basic":
            with read_write(config):
                config.hydra.launcher._target_ = LOCAL
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    @staticmethod
    def split_arguments(
        overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """Return the jobs; raises UserError for an axis without a value, which leaves none."""
        for override in overrides:
            if override.is_discrete_sweep() and not any(override.sweep_string_iterator()):
                line = override.input_line or override.key_or_group
                raise UserError(f"the sweep has no jobs: the axis '{line}' is empty")
        return BasicSweeper.split_arguments(overrides, max_batch_size)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Leave it to the launchers, which check more."""
