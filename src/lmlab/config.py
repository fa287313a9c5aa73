"""The whole configuration of a run: from what Hydra composed to frozen, checked values.

Nothing behind `load` sees Hydra, OmegaConf or a dict.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, ValidationError

from lmlab.cluster.config import SlurmConfig
from lmlab.config_errors import explain_validation_error, format_value
from lmlab.data.config import DataConfig
from lmlab.errors import ConfigError, UserError
from lmlab.model.config import ModelConfig
from lmlab.optim.config import OptimizerConfig, ScheduleConfig
from lmlab.runs.config import LoggerConfig
from lmlab.schema import Config, flatten
from lmlab.task.config import TaskConfig
from lmlab.tokenizer.config import TokenizerConfig
from lmlab.training.config import BudgetConfig, TrainerConfig

NOT_IDENTITY = ("name", "resume", "logger", "slurm")
"""Keys that say where a run is computed, kept and shown, not what it computes."""


class RunConfig(Config):
    """Everything that determines a run."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    """Name of the run's folder; letters, digits, '_', '-' and '.'."""
    seed: Annotated[int, Field(ge=0)]
    """Of the initial weights, the batches and the samples."""
    lr: Annotated[float, Field(gt=0)]
    """Learning rate, read by every optimizer."""
    resume: Path | None
    """Continue the run in this directory."""
    task: TaskConfig
    tokenizer: TokenizerConfig
    data: DataConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    budget: BudgetConfig
    trainer: TrainerConfig
    logger: LoggerConfig
    slurm: SlurmConfig

    def identity(self) -> dict[str, Any]:
        """Return what determines the result, as plain values."""
        return {k: v for k, v in self.model_dump(mode="json").items() if k not in NOT_IDENTITY}

    def fingerprint(self) -> str:
        """Return a hash of `identity`, 16 hexadecimal digits."""
        canonical = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        """Return the configuration as YAML that `load_yaml` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load(config: DictConfig | Mapping[str, Any]) -> RunConfig:
    """Check a composed configuration; raises ConfigError for the first thing wrong in it."""
    if isinstance(config, DictConfig):
        try:
            values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            problem = str(error).splitlines()[0]
            raise ConfigError(error.full_key or "", problem) from error
    else:
        values = dict(config)
    # Strict JSON mode refuses "3" or true for a number; whole floats (1e4) are written as integers.
    text = json.dumps(_whole_floats_to_int(values))
    try:
        return RunConfig.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise explain_validation_error(error, values, RunConfig) from error


def load_yaml(path: Path) -> RunConfig:
    """Read a run's `config.yaml`; raises UserError when it is not there or not one of ours."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent} is not a run directory: it has no {path.name}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no configuration")
    try:
        return load(values)
    except ConfigError as error:
        raise UserError(f"{path}: {error}") from error


def difference(old: RunConfig, new: RunConfig) -> str:
    """Return the keys that differ and matter to the result, as `key: old -> new, ...`."""
    before, after = flatten(old.identity()), flatten(new.identity())
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return ", ".join(
        f"{key}: {format_value(before.get(key))} -> {format_value(after.get(key))}" for key in keys
    )


def _whole_floats_to_int(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {str(key): _whole_floats_to_int(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_whole_floats_to_int(value) for value in values]
    if isinstance(values, float) and values.is_integer():
        return int(values)
    return values
