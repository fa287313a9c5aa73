"""Configuration of problems: where prompts and their truths come from."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lmlab.schema import Config

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class AdditionConfig(Config):
    """Sums of two integers, `12+34=`; every pair of the given number of digits once."""

    kind: Literal["addition"]
    digits: Annotated[int, Field(ge=1, le=3)]
    """Digits of both summands."""
    held_out: Fraction
    """Share of the pairs held out, chosen by a hash of the pair, in any order."""


class CountdownConfig(Config):
    """Combine numbers by + - * to a target, each once: `3 5 8 > 19:`."""

    kind: Literal["countdown"]
    numbers: Annotated[int, Field(ge=2, le=6)]
    """Numbers of a problem."""
    largest: Annotated[int, Field(ge=1)]
    """Largest number; the smallest is 1."""
    count: Count
    """Problems, those held out included; duplicates are left out."""
    held_out: Fraction
    """Share of the problems held out, chosen by a hash of the numbers, in any order, and target."""


class ReasoningGymConfig(Config):
    """A task of the package reasoning-gym (Stojanovski et al. 2025)."""

    kind: Literal["reasoning_gym"]
    name: str
    """Name of the task: chain_sum, for instance."""
    count: Count
    """Problems, those held out included."""
    held_out: Fraction
    """Share of the problems held out, chosen by a hash of the question."""


class ProblemFilesConfig(Config):
    """Your own problems: JSON lines with a prompt and what is right."""

    kind: Literal["files"]
    path: Path
    """File of training problems; those that are also held out are left out."""
    validation_path: Path
    """File of held-out problems."""
    prompt_field: str
    """Field of the prompt."""
    answer_field: str
    """Field of the truth that the reward compares a response with."""


ProblemsConfig = Annotated[
    AdditionConfig | CountdownConfig | ReasoningGymConfig | ProblemFilesConfig,
    Field(discriminator="kind"),
]
