"""Problems: prompts with what is right, generated or read from files."""

from collections.abc import Callable
from typing import TYPE_CHECKING, assert_never

from lmlab.alignment.problems.config import (
    AdditionConfig,
    CountdownConfig,
    ProblemFilesConfig,
    ProblemsConfig,
    ReasoningGymConfig,
)

if TYPE_CHECKING:
    from lmlab.alignment.problems.problem import Problems


def open_problems(config: ProblemsConfig, say: Callable[[str], None]) -> "Problems":
    """Return the problems that a configuration describes; raises DataError for bad files.

    `say` is called with what is left out of files.
    """
    from lmlab.alignment.problems.files import read_problems
    from lmlab.alignment.problems.generated import addition, countdown, reasoning_gym
    from lmlab.alignment.problems.problem import checked, divided

    if isinstance(config, AdditionConfig):
        return divided(addition(config), config.held_out)
    if isinstance(config, CountdownConfig):
        return divided(countdown(config), config.held_out)
    if isinstance(config, ReasoningGymConfig):
        return divided(reasoning_gym(config), config.held_out)
    if isinstance(config, ProblemFilesConfig):
        return checked(read_problems(config, say), f"{config.path}, {config.validation_path}")
    assert_never(config)
