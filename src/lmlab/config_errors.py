"""Explanations of invalid configurations: one line that names the key, the value and the rule."""

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lmlab.errors import ConfigError
from lmlab.schema import classes_at, keys_at, members, named_members

GLOBAL_GROUPS = ("experiment", "sweep", "debug")
"""Groups whose files must start with `# @package _global_`."""


def explain_validation_error(
    error: ValidationError, values: Any, root: type[BaseModel]
) -> ConfigError:
    """Return the first problem that pydantic found in `values`, in the user's terms."""
    details = error.errors()
    path, given = _locate(details[0], values, root)
    problem = _explain(details[0], path, given, root)
    # `lr: ${lr}` repeats a mistake under other keys: it is one mistake
    different = {(detail["loc"][-1:], detail["type"], repr(detail["input"])) for detail in details}
    if len(different) > 1:
        problem += f" (and {len(different) - 1} more)"
    return ConfigError(".".join(path), problem)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return `, did you mean 'x'?` for the nearest choice, or nothing when none is near."""
    near = difflib.get_close_matches(word, list(choices), n=1)
    return f", did you mean '{near[0]}'?" if near else ""


def not_one_of(value: Any, choices: Sequence[Any]) -> str:
    """Return that a value is not one of the choices, which ones there are and the nearest."""
    hint = did_you_mean(str(value), map(str, choices)).removeprefix(", ")
    text = f"{format_value(value)} is not one of {', '.join(map(format_value, choices))}"
    return text + (f" ({hint})" if hint else "")


def unknown_key(path: Sequence[str], root: type[BaseModel]) -> str:
    """Return why the chosen members below `root` have no such key, and which was meant."""
    *parents, key = path
    if not parents and key in keys_at(root, []):
        return "a group; give it one of its choices"
    if key not in keys_at(root, parents):
        others = [] if parents else GLOBAL_GROUPS
        return "unknown key" + did_you_mean(key, [*keys_at(root, parents), *others])
    classes = classes_at(root, parents)
    having = [_kind(cls) for cls in classes if key in cls.model_fields]
    reasons = [getattr(cls, "REFUSED", {}).get(key) for cls in classes]
    group = "/".join(parents)
    return f"not a key of the chosen {group}, but of {group}={' or '.join(having)}" + "".join(
        f" ({reason})" for reason in reasons if reason
    )


def format_value(value: Any) -> str:
    """Return a value as it is written on the command line: null, true, 3, 'text'."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def _kind(cls: type[BaseModel]) -> str:
    kind = cls.model_fields.get("kind")
    return str(get_args(kind.annotation)[0]) if kind else cls.__name__


def _locate(error: ErrorDetails, values: Any, root: type[BaseModel]) -> tuple[list[str], Any]:
    """Return the path of keys to the problem and the value there."""
    path: list[str] = []
    given = error["input"]
    location = _without_tags(error["loc"], root)
    for index, part in enumerate(location):
        inside = isinstance(values, Mapping) and part in values
        if inside or index == len(location) - 1:
            path.append(str(part))
        given = values[part] if inside else error["input"]
        values = values[part] if inside else values
    return path, given


def _without_tags(location: Sequence[str | int], root: type[BaseModel]) -> list[str | int]:
    """Return pydantic's location without the names of union members, which are not keys."""
    classes = [root]
    named: list[type[BaseModel]] = []
    keys: list[str | int] = []
    skip = False
    for part in location:
        if skip:  # only the named member's keys may follow
            skip = False
            classes = [cls for cls in classes if _kind(cls) == part] or classes
            continue
        keys.append(part)
        if named:  # a name of a mapping
            classes, named = named, []
        else:
            fields = [cls.model_fields[part] for cls in classes if part in cls.model_fields]
            classes = [member for field in fields for member in members(field.annotation)]
            named = [member for field in fields for member in named_members(field.annotation)]
        skip = len(classes) > 1
    return keys


def _explain(error: ErrorDetails, path: Sequence[str], given: Any, root: type[BaseModel]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        if len(path) == 1 and path[0] in GLOBAL_GROUPS:
            return "unknown key; is '# @package _global_' missing at the top of the file?"
        return unknown_key(path, root)
    if kind in _MESSAGES:
        return _MESSAGES[kind](context, given)
    if kind in _BOUNDS:
        name, sign = _BOUNDS[kind]
        return f"must be {sign} {_number(context[name])}, got {format_value(given)}"
    wanted = _TYPES.get(kind.split("_")[0])
    if wanted and kind != "string_pattern_mismatch":
        return f"must be {wanted}, got {format_value(error['input'])}"
    message = error["msg"]
    return f"{message[0].lower()}{message[1:]}, got {format_value(error['input'])}"


def _number(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def _choices(expected: str) -> list[Any]:
    """Return the choices in pydantic's text `'a', 'b' or True`."""
    words = expected.replace(" or ", ", ").split(", ")
    booleans = {"True": True, "False": False}
    return [booleans.get(word, word.strip("'")) for word in words]


_MESSAGES: dict[str, Callable[[Mapping[str, Any], Any], str]] = {
    "missing": lambda context, given: "missing; give it a value",
    "value_error": lambda context, given: str(context["error"]),
    "literal_error": lambda context, given: not_one_of(given, _choices(context["expected"])),
    "union_tag_invalid": lambda context, given: not_one_of(
        context["tag"], _choices(context["expected_tags"])
    ),
}
"""Kind of pydantic error -> message."""

_BOUNDS = {
    "greater_than": ("gt", ">"),
    "greater_than_equal": ("ge", ">="),
    "less_than": ("lt", "<"),
    "less_than_equal": ("le", "<="),
}
"""Kind of pydantic error -> name of the bound in its context, sign."""

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
}
"""First word of a kind of pydantic error -> what the value must be."""
