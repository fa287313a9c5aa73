"""What the configurations of all cleaning steps share; nothing heavy is imported."""

from typing import Annotated

from pydantic import Field

from lmlab.cleaning.document import Criterion
from lmlab.schema import Config

Ratio = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Length = Annotated[float, Field(gt=0)]
NGrams = dict[Annotated[int, Field(ge=1, le=64)], Ratio]
"""Words in an n-gram -> the largest share of the text's characters that they may fill."""


class StepBase(Config):
    """What all steps share."""

    @property
    def step_name(self) -> str:
        """The name in scores, reasons and reports."""
        return str(getattr(self, "kind"))  # noqa: B009

    def files(self) -> list[str]:
        """Return the files, folders and patterns of what the step reads beside the documents."""
        return []

    def criteria(self) -> list[Criterion]:
        """Return the criteria in the order in which they decide."""
        return []

    def criterion(
        self, reason: str, low: str = "", high: str = "", score: str | None = None
    ) -> list[Criterion]:
        """Return the criterion whose bounds stand under two keys; none when both are null."""
        bounds = [None if key == "" else getattr(self, key) for key in (low, high)]
        if bounds == [None, None]:
            return []
        name = f"{self.step_name}.{score or reason}"
        return [Criterion(name, reason, bounds[0], bounds[1], low, high)]

    def fixed(self, reason: str, low: float | None = None, high: float | None = None) -> Criterion:
        """Return a criterion whose bounds are no configuration."""
        return Criterion(f"{self.step_name}.{reason}", reason, low, high)

    def ordered(self, low: str, high: str) -> None:
        """Refuse a lower bound above the upper one."""
        bounds = getattr(self, low), getattr(self, high)
        if None not in bounds and bounds[0] > bounds[1]:
            raise ValueError(f"{low}={bounds[0]} is above {high}={bounds[1]}: nothing passes")
