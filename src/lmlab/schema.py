"""The base of every configuration class."""

import ast
import inspect
import itertools
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen group of settings: unknown keys are errors, and values live in YAML alone.

    The string under a field is its help text, see `descriptions`.
    """

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset()
    """Keys that say how, where or how visibly a run is computed: they do not change its result, and
    may change when it is resumed."""
    LATER: ClassVar[dict[str, Any]] = {}
    """Keys that earlier versions lacked, with the value for what those did: at it they are no part
    of the identity, so that the checkpoints of earlier versions still fit."""
    REFUSED: ClassVar[dict[str, str]] = {}
    """Keys of other members of a union that this one cannot have, with the reason."""

    # deferred: only the class that is validated is built, with all below it, when it is first used
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


def identity(config: Config) -> dict[str, Any]:
    """Return the values that determine a result, as JSON, without the keys in NOT_IDENTITY."""
    dumped = config.model_dump(mode="json")
    for name in dumped.keys() & config.NOT_IDENTITY:
        del dumped[name]
    for name, earlier in config.LATER.items():
        if dumped[name] == earlier:
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


def named_members(annotation: Any) -> list[type[BaseModel]]:
    """Return the configuration classes of the values of a mapping; nothing for other fields."""
    return members(get_args(annotation)[1]) if get_origin(annotation) is dict else []


def classes_at(root: type[BaseModel], path: Iterable[str]) -> list[type[BaseModel]]:
    """Return the configuration classes that can stand under a path of keys below `root`.

    In a mapping any name stands for all classes of its values.
    """
    classes, named = [root], list[type[BaseModel]]()
    for key in path:
        if named:
            classes, named = named, []
            continue
        fields = [cls.model_fields[key] for cls in classes if key in cls.model_fields]
        classes = [member for field in fields for member in members(field.annotation)]
        named = [member for field in fields for member in named_members(field.annotation)]
    return classes


def keys_at(root: type[BaseModel], path: Iterable[str]) -> list[str]:
    """Return the keys under a path below `root`, of all members of the unions on the way."""
    return list(dict.fromkeys(name for cls in classes_at(root, path) for name in cls.model_fields))


def descriptions(cls: type[BaseModel]) -> dict[str, str]:
    """Return the help text of each field: the string under it, in the class or its bases.

    They are read from the source on demand, because that takes longer than defining the classes.
    """
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] not in ("builtins", "pydantic"):
            texts |= _strings_under_fields(base.__module__).get(base.__name__, {})
    return texts


@cache
def _strings_under_fields(module: str) -> dict[str, dict[str, str]]:
    """Return class -> field -> text for the classes of a module."""
    texts: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for pair in itertools.pairwise(node.body):
            match pair:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    texts.setdefault(node.name, {})[name] = inspect.cleandoc(text)
    return texts
