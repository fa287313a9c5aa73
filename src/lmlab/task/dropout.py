"""Dropout, which tasks that compare log-probabilities cannot have."""

from lmlab.config import RunConfig
from lmlab.errors import ConfigError
from lmlab.schema import flatten


def refuse_dropout(config: RunConfig) -> None:
    """Raise ConfigError when the model has dropout.

    The log-probabilities of a rollout and of a reference are computed without it. Those of the step
    would differ from them for an unchanged model: its ratios would not be 1.
    """
    values = flatten({"model": config.model.model_dump()})
    given = [key for key, value in values.items() if key.endswith(".dropout") and value]
    if given:
        keys = " ".join(f"{key}=0" for key in given)
        raise ConfigError(
            given[0],
            f"task={config.task.kind} compares log-probabilities with those of a model without "
            f"dropout, got {values[given[0]]:g}; set {keys}",
        )
