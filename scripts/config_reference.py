"""The reference of the configuration, made from the classes and the YAML files of conf/."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lmlab.config import RunConfig
from lmlab.schema import members

PLAIN = {bool: "`true` or `false`", int: "integer", float: "number", str: "text", Path: "path"}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
FREE = "*May change on resume.*"
HEADER = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
INTRODUCTION = """\
# Configuration

Every key of a run, made from the configuration classes and the files in `conf/`. Write
`key=value` on the command line, or `group=choice` to take another file of a group.
`null` means: derived, or off.
Defaults are those of the file that each heading names. Keys marked *May change on resume* do not
change the result of a run; all others are its identity.
"""


def configuration_page(root: Path) -> str:
    """Return the page, in Markdown."""
    conf = root / "conf"
    base = _read(conf / "config.yaml")
    chosen = {key: choice for entry in base["defaults"] if isinstance(entry, Mapping)
              for key, choice in entry.items()}  # fmt: skip
    lines = [INTRODUCTION, "## Top level", "", *HEADER]
    groups = []
    for name, field in RunConfig.model_fields.items():
        if members(field.annotation):
            groups.append((name, field))
        elif name in base:  # the version of the schema is not the user's to give
            lines.append(_row(name, field, base))
    lines.append("")
    for name, field in groups:
        lines += _group(conf, [name], field, chosen.get(name), base.get(name))
    return "\n".join(lines) + "\n"


def _group(
    conf: Path, path: list[str], field: FieldInfo, default: str | None, values: Any
) -> Iterator[str]:
    """Yield the section of a group, its members, and the groups inside it."""
    folder = conf.joinpath(*path)
    files = {file.stem: _resolved(file) for file in sorted(folder.glob("*.yaml"))}
    yield from [f"## {'/'.join(path)}", ""]
    if files:
        yield from ["| choice | what |", "| --- | --- |"]
        for name in files:
            mark = " (default)" if name == default else ""
            comment = _escaped(_comment(folder / f"{name}.yaml"))
            yield f"| `{'/'.join(path)}={name}`{mark} | {comment} |"
        yield ""
    inner: dict[str, FieldInfo] = {}
    classes = members(field.annotation)
    for cls in classes:
        kind = _kind(cls)
        name = next((n for n in [default, kind, *files] if n in files
                     and files[n].get("kind") == kind), None)  # fmt: skip
        shown = files[name] if name else dict(values or {})
        if len(classes) > 1 or kind:
            yield from [f"### {'/'.join(path)}={name or kind}", ""]
        yield from [" ".join((cls.__doc__ or "").split()), ""]
        rows = list(_rows(conf, path, cls, shown, inner))
        yield from [*HEADER, *rows, ""] if rows else []
    for key, nested in inner.items():
        yield from _group(conf, [*path, key], nested, _default_choice(folder, key), None)


def _rows(
    conf: Path, path: list[str], cls: type[BaseModel], values: Mapping[str, Any], inner: Any
) -> Iterator[str]:
    for name, field in cls.model_fields.items():
        nested = members(field.annotation)
        if nested and conf.joinpath(*path, name).is_dir():
            inner[name] = field
        elif len(nested) == 1:
            yield from _rows(conf, [*path, name], nested[0], values.get(name) or {}, inner)
        elif name != "kind":
            row = _row(".".join([*path, name]), field, values, name)
            yield f"{row[:-2]} {FREE} |" if name in getattr(cls, "NOT_IDENTITY", ()) else row


def _row(key: str, field: FieldInfo, values: Mapping[str, Any], name: str | None = None) -> str:
    name = name or key
    default = f"`{_shown(values[name])}`" if name in values else ""
    meaning = _escaped(" ".join((field.description or "").split()))
    kind = _type(field.annotation, field.metadata)
    return f"| `{key}` | {kind} | {_escaped(default)} | {meaning} |"


def _type(annotation: Any, metadata: Any = ()) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inside, *rest = arguments
        found = [part for item in rest for part in getattr(item, "metadata", [item])]
        return _type(inside, [*found, *metadata])
    if origin is Literal:
        return " or ".join(f"`{_shown(value)}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_type(part) for part in arguments)
    if origin is list or origin is tuple:
        return f"list of {_type(arguments[0])}"
    if annotation is NoneType:
        return "`null`"
    if members(annotation):
        return "group"
    text = PLAIN.get(annotation, "mapping" if origin is dict or annotation is dict else "value")
    bounds = [
        f"{sign} {limit}"
        for item in metadata
        for name, sign in BOUNDS.items()
        if (limit := getattr(item, name, None)) is not None
    ]
    return " ".join([text, ", ".join(bounds)]).strip()


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n...\n").strip()
    )


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _kind(cls: type[BaseModel]) -> str:
    kind = cls.model_fields.get("kind")
    return str(get_args(kind.annotation)[0]) if kind else ""


def _read(path: Path) -> dict[str, Any]:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values if isinstance(values, dict) else {}


def _resolved(path: Path) -> dict[str, Any]:
    """Return the values of a file over those of the files of its group that it builds on."""
    values = _read(path)
    below: dict[str, Any] = {}
    for entry in values.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            below |= _resolved(path.with_name(f"{entry}.yaml"))
    return below | values


def _default_choice(folder: Path, key: str) -> str | None:
    """Return which file of the group inside `folder` its files choose."""
    for path in sorted(folder.glob("*.yaml")):
        for entry in _read(path).get("defaults", []):
            if isinstance(entry, Mapping) and key in entry:
                return str(entry[key])
    return None


def _comment(path: Path) -> str:
    """Return the comment at the top of a file."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)
