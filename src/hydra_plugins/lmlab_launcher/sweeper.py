"""The sweeper `grid`: every combination of the axes."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override

from lmlab.errors import UserError


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper, without its composing every job once more to see whether it can be."""

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
