"""The whole configuration of a run: from what Hydra composed to frozen, checked values.

Nothing behind `load` sees Hydra, OmegaConf or a dict.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from lmlab.cluster.config import SlurmConfig
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
        details = error.errors()
        path, problem = _explain(details[0], values)
        if len(details) > 1:
            problem += f" (and {len(details) - 1} more)"
        raise ConfigError(path, problem) from error


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
    return ", ".join(f"{key}: {_show(before.get(key))} -> {_show(after.get(key))}" for key in keys)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return `, did you mean 'x'?` for the nearest choice, or nothing when none is near."""
    near = difflib.get_close_matches(word, list(choices), n=1)
    return f", did you mean '{near[0]}'?" if near else ""


def members(annotation: Any) -> list[type[BaseModel]]:
    """Return the configuration classes that a field can hold: one, or a union's members."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) is Union or type(annotation).__name__ == "UnionType":
        return [member for part in get_args(annotation) for member in members(part)]
    return []


def classes_at(path: Iterable[str]) -> list[type[BaseModel]]:
    """Return the configuration classes that can be under a path of keys."""
    classes: list[type[BaseModel]] = [RunConfig]
    for key in path:
        fields = [cls.model_fields[key] for cls in classes if key in cls.model_fields]
        classes = [member for field in fields for member in members(field.annotation)]
    return classes


def keys_at(path: Iterable[str]) -> list[str]:
    """Return the keys that exist under a path of keys, in all members of the unions on the way."""
    return list(dict.fromkeys(name for cls in classes_at(path) for name in cls.model_fields))


def unknown_key(path: Sequence[str]) -> str:
    """Return what is wrong with a key that the chosen members do not have, and what was meant."""
    *parents, key = path
    if key not in keys_at(parents):
        return "unknown key" + did_you_mean(key, keys_at(parents))
    classes = classes_at(parents)
    having = [_kind(cls) for cls in classes if key in cls.model_fields]
    reasons = [getattr(cls, "REFUSED", {}).get(key) for cls in classes]
    group = "/".join(parents)
    return f"not a key of the chosen {group}, but of {group}={' or '.join(having)}" + "".join(
        f" ({reason})" for reason in reasons if reason
    )


def _kind(cls: type[BaseModel]) -> str:
    kind = cls.model_fields.get("kind")
    return str(get_args(kind.annotation)[0]) if kind else cls.__name__


def _whole_floats_to_int(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {str(key): _whole_floats_to_int(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_whole_floats_to_int(value) for value in values]
    if isinstance(values, float) and values.is_integer():
        return int(values)
    return values


def _explain(error: ErrorDetails, values: Any) -> tuple[str, str]:
    """Return the path in the user's terms and what is wrong there."""
    path: list[str] = []
    classes: list[type[BaseModel]] = [RunConfig]
    last = len(error["loc"]) - 1
    inside = skip = False
    for index, part in enumerate(error["loc"]):
        if skip:  # the tag of a union's member is pydantic's, not a key of the user's
            skip = False
            continue
        inside = isinstance(values, Mapping) and part in values
        if inside or index == last:
            path.append(str(part))
        values = values[part] if inside else values
        fields = [cls.model_fields[part] for cls in classes if part in cls.model_fields]
        classes = [member for field in fields for member in members(field.annotation)]
        skip = len(classes) > 1
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    where = ".".join(path)
    if kind == "extra_forbidden":
        if where in ("experiment", "sweep", "debug"):
            return where, "unknown key; is '# @package _global_' missing at the top of the file?"
        return where, unknown_key(path)
    if kind == "missing":
        return where, "missing; give it a value"
    if kind == "value_error":
        return where, str(context["error"])
    if kind in ("literal_error", "union_tag_invalid"):
        expected = context["expected"] if kind == "literal_error" else context["expected_tags"]
        for old, new in ((" or ", ", "), ("True", "true"), ("False", "false")):
            expected = expected.replace(old, new)
        value = given if kind == "literal_error" else context["tag"]
        hint = did_you_mean(str(value), [word.strip("'") for word in expected.split(", ")])
        return where, f"{_show(value)} is not one of {expected}" + (
            f" ({hint.removeprefix(', ')})" if hint else ""
        )
    bounds = {"greater_than": ("gt", ">"), "greater_than_equal": ("ge", ">=")}
    bounds |= {"less_than": ("lt", "<"), "less_than_equal": ("le", "<=")}
    if kind in bounds:
        name, sign = bounds[kind]
        limit = context[name]
        return where, f"must be {sign} {limit:g}, got {_show(values if inside else given)}"
    wanted = {"int": "a whole number", "float": "a number", "finite": "a finite number"}
    wanted |= {"bool": "true or false", "string": "text"}
    for prefix, what in wanted.items():
        if kind.startswith(f"{prefix}_") and kind != "string_pattern_mismatch":
            return where, f"must be {what}, got {_show(given)}"
    return where, f"{error['msg'][0].lower()}{error['msg'][1:]}, got {_show(given)}"


def _show(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
