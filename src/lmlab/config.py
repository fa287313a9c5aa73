"""The whole configuration of a run: from what Hydra composed to frozen, checked values.

Nothing behind `load` sees Hydra, OmegaConf or a dict.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, Field, ValidationError, model_validator

from lmlab.cluster.config import SlurmConfig
from lmlab.config_errors import explain_validation_error, format_value
from lmlab.data.config import DataConfig
from lmlab.errors import ConfigError, UserError
from lmlab.migrations import SCHEMA_VERSION, migrated
from lmlab.model.config import ModelConfig
from lmlab.optim.config import LearningRate, OptimizerConfig, ScheduleConfig
from lmlab.parallel.config import ParallelConfig
from lmlab.runs.config import LoggerConfig
from lmlab.schema import Config, flatten, identity
from lmlab.task.config import ObjectiveConfig, PretrainConfig, SFTConfig, TaskConfig
from lmlab.tokenizer.config import TokenizerConfig
from lmlab.training.config import BudgetConfig, TrainerConfig


def _folder_name(name: str) -> str:
    if not re.fullmatch(r"\.*[\w-][\w.-]*", name):
        raise ValueError(f"must be of letters, digits, '_', '-' and '.', got {name!r}")
    return name


class RunConfig(Config):
    """Everything that determines a run."""

    NOT_IDENTITY = frozenset({"name", "resume", "logger", "slurm", "parallel"})

    name: Annotated[str, AfterValidator(_folder_name)]
    """Name of the run's folder; letters, digits, '_', '-' and '.'."""
    seed: Annotated[int, Field(ge=0)]
    """Seed of the initial weights, the batches and the samples."""
    lr: LearningRate
    """Learning rate, read by every optimizer."""
    resume: Path | None
    """Run directory, or one of its checkpoints, to continue; further keys may change how the run
    is computed, not its result."""
    init_from: Path | None
    """Run directory, or one of its checkpoints, whose weights a new run starts from; the new run
    has its configuration, too, but for the keys that are given."""
    init_optimizer: bool
    """With init_from: continue its optimizer, learning rate schedule and step as well."""
    task: TaskConfig
    tokenizer: TokenizerConfig
    data: DataConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    budget: BudgetConfig
    trainer: TrainerConfig
    parallel: ParallelConfig
    logger: LoggerConfig
    slurm: SlurmConfig

    @model_validator(mode="after")
    def _has_a_parent(self) -> Self:
        if self.init_optimizer and self.init_from is None:
            raise ValueError("init_optimizer=true needs init_from=RUN, whose optimizer it takes")
        return self

    @model_validator(mode="after")
    def _task_fits(self) -> Self:
        if self.task.kind != "pretrain":
            self.task.check(self.trainer.batch_size, self.model.context_length)
            if getattr(self.task, "kl", 0) and self.init_from is None:
                raise ValueError("task.kl needs init_from=RUN: the penalty is against its model")
        return self

    def next_token_objective(self) -> ObjectiveConfig:
        """Return the objective of pretraining; raises ConfigError for another task."""
        if not isinstance(self.task, PretrainConfig):
            raise ConfigError(
                "task", f"{self.task.kind} has no objective of next tokens; use task=pretrain"
            )
        return self.task.objective

    def tokens_per_step(self) -> int | None:
        """Return the tokens of every step; None for a task whose steps differ in it."""
        row = self.model.context_length
        return self.trainer.batch_size * row if self.task.fills_context() else None

    def sample_prompt(self) -> str | None:
        """Return the prompt of the run's samples, if there is one."""
        if isinstance(self.task, PretrainConfig | SFTConfig):
            return self.task.sample.prompt
        return None

    def identity(self) -> dict[str, Any]:
        """Return what determines the result, as plain values."""
        values = identity(self)
        if self.init_from is None:
            del values["init_from"], values["init_optimizer"]
        return values

    def fingerprint(self) -> str:
        """Return a hash of `identity`, 16 hexadecimal digits."""
        return _hash(self.identity())

    def to_yaml(self) -> str:
        """Return the configuration as YAML that `load_yaml` reads back."""
        values = {"schema_version": SCHEMA_VERSION} | self.model_dump(mode="json")
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


Root = TypeVar("Root", bound=Config)


def load(config: DictConfig | Mapping[str, Any]) -> RunConfig:
    """Check a composed configuration; raises ConfigError for the first thing wrong in it."""
    return load_as(RunConfig, config)


def load_as(root: type[Root], config: DictConfig | Mapping[str, Any]) -> Root:
    """Check a composed configuration against `root`; raises ConfigError for what is wrong."""
    values = plain_values(config)
    # Strict JSON mode refuses "3" or true for a number; whole floats (1e4) are written as integers.
    text = json.dumps(_whole_floats_to_int(values))
    try:
        checked = root.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise explain_validation_error(error, values, root) from error
    for key, value in flatten(checked.model_dump()).items():
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ConfigError(key, f"must be below 2**63, to fit into 64 bits, got {value}")
    return checked


MISSING = "???"


def plain_values(
    config: DictConfig | Mapping[str, Any], *, missing: bool = False
) -> dict[str, Any]:
    """Return a composed configuration with its interpolations resolved, as plain values.

    Raises ConfigError for a value that nothing gives, unless `missing`: then it is MISSING.
    """
    if not isinstance(config, DictConfig):
        return dict(config)
    try:
        values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=not missing)
    except OmegaConfBaseException as error:
        raise ConfigError(error.full_key or "", str(error).splitlines()[0]) from error
    return values


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the values in a run's `config.yaml`; raises UserError when it cannot be read."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path.parent} is not a run directory: it has no {path.name}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"cannot read {path}: line {line}: {error.problem}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no configuration")
    return values


def load_yaml(path: Path) -> RunConfig:
    """Return the configuration in a run's `config.yaml`, also of earlier versions.

    Raises UserError when it cannot be read, or is not a configuration.
    """
    values = read_yaml(path)
    try:
        return load(migrated(values))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def stored_fingerprints(path: Path) -> set[str]:
    """Return the fingerprints that the checkpoints of a run may have, by its `config.yaml`.

    More than one where an earlier version, with other keys, began the run.
    """
    values = read_yaml(path)
    found = {load_yaml(path).fingerprint()}
    if "schema_version" not in values:
        found.add(_hash({k: v for k, v in values.items() if k not in RunConfig.NOT_IDENTITY}))
    return found


def difference(old: RunConfig, new: RunConfig) -> str:
    """Return the keys that differ and change the result, as `key: old -> new, ...`."""
    changes = _changes(old.identity(), new.identity())
    return ", ".join(
        f"{key}: {format_value(before)} -> {format_value(now)}" for key, before, now in changes
    )


def changed_settings(old: RunConfig, new: RunConfig) -> dict[str, list[Any]]:
    """Return the keys that differ without changing the result, as `{key: [old, new]}`."""
    hidden = {"name", "resume"}
    before, now = (flatten(config.model_dump(mode="json", exclude=hidden)) for config in (old, new))
    result = {key for key, *_ in _changes(old.identity(), new.identity())}
    return {key: [a, b] for key, a, b in _changes(before, now) if key not in result}


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    before, after = flatten(old), flatten(new)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return [(key, before.get(key), after.get(key)) for key in keys]


def _hash(values: dict[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _whole_floats_to_int(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {str(key): _whole_floats_to_int(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_whole_floats_to_int(value) for value in values]
    if isinstance(values, float) and values.is_integer():
        return int(values)
    return values
