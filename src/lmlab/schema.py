"""The base of every configuration class."""

from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, field_validator


class Config(BaseModel):
    """A frozen group of settings: unknown keys are errors, and values live in YAML alone.

    The string under a field is its help text.
    """

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset()
    """Keys that say how, where or how visibly a run is computed: they do not change its result, and
    may change when it is resumed."""
    REFUSED: ClassVar[dict[str, str]] = {}
    """Keys of other members of a union that this one cannot have, with the reason."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*")
    @classmethod
    def _fits_into_64_bits(cls, value: Any) -> Any:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError("must be below 2**63, what 64 bits hold")
        return value


def identity(config: Config) -> dict[str, Any]:
    """Return the values that determine a result, as JSON, without the keys in NOT_IDENTITY."""
    dumped = config.model_dump(mode="json")
    for name in dumped.keys() & config.NOT_IDENTITY:
        del dumped[name]
    for name in dumped:
        if isinstance(value := getattr(config, name), Config):
            dumped[name] = identity(value)
    return dumped


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def members(annotation: Any) -> list[type[BaseModel]]:
    """Return the configuration classes that a field can hold: one class, or a union's members."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [member for part in get_args(annotation) for member in members(part)]
    return []


def classes_at(root: type[BaseModel], path: Iterable[str]) -> list[type[BaseModel]]:
    """Return the configuration classes that can stand under a path of keys below `root`."""
    classes = [root]
    for key in path:
        fields = [cls.model_fields[key] for cls in classes if key in cls.model_fields]
        classes = [member for field in fields for member in members(field.annotation)]
    return classes


def keys_at(root: type[BaseModel], path: Iterable[str]) -> list[str]:
    """Return the keys under a path below `root`, of all members of the unions on the way."""
    return list(dict.fromkeys(name for cls in classes_at(root, path) for name in cls.model_fields))
