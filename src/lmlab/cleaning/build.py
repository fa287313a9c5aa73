"""Steps from their configuration; what a step needs is imported here, when it is built."""

import importlib
from collections.abc import Sequence

from lmlab.cleaning.config import StepBase
from lmlab.cleaning.document import Criterion, Step

_STEPS = {
    "extract": ("extraction", "Extract"),
    "repair": ("repair", "Repair"),
    "language": ("language", "Language"),
    "pii": ("pii", "Pii"),
    "gopher": ("quality", "Gopher"),
    "repetition": ("quality", "Repetition"),
    "c4": ("c4", "C4"),
    "fineweb": ("quality", "FineWeb"),
    "classifier": ("classifier", "Classifier"),
    "decontaminate": ("decontamination", "Decontaminate"),
}
"""kind -> module and class."""


def build(config: StepBase) -> Step:
    """Return the step; raises UserError when a package or a model file is missing."""
    module, name = _STEPS[config.kind]  # type: ignore[attr-defined]
    step: Step = getattr(importlib.import_module(f"lmlab.cleaning.{module}"), name)(config)
    return step


def criteria(steps: Sequence[StepBase]) -> dict[str, list[Criterion]]:
    """Return step name -> its criteria in the order in which they decide."""
    return {step.step_name: step.criteria() for step in steps}
