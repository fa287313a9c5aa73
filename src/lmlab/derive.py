"""A configuration on top of another run's: what `resume=` and `init_from=` mean."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lmlab.config import MISSING, RunConfig, load, load_yaml, read_yaml
from lmlab.errors import ConfigError
from lmlab.layout import CONFIG, TOKENIZER, checkpoint_of, run_of
from lmlab.migrations import migrated
from lmlab.schema import flatten

OWN = ("name", "slurm", "logger", "init_optimizer")
"""Keys that a run with a parent has from the command line, not from its parent."""


def parent_of(resume: str | None, init_from: str | None) -> dict[str, Any] | None:
    """Return the values of the configuration that `resume` or `init_from` builds on, if any.

    Raises UserError when they name no run directory, or one whose configuration is damaged.
    """
    if resume is not None and init_from is not None:
        raise ConfigError("init_from", "starts a new run, resume= continues one; give one of them")
    path = resume or init_from
    if path is None:
        return None
    stored = run_of(Path(path).expanduser()) / CONFIG
    load_yaml(stored)  # what is wrong with the file is said with its name
    return migrated(read_yaml(stored))


def group_choices(conf: Path, base: Mapping[str, Any], path: str = "") -> list[str]:
    """Return the choices of groups, `data=text`, that have the keys of a stored configuration."""
    choices = []
    if "kind" in base and path:
        names = sorted(file.stem for file in (conf / path).glob("*.yaml"))
        kind = base["kind"]
        fitting = [name for name in names if name == kind] or [
            name for name in names if name.startswith(kind)
        ]
        choices += [f"{path}={name}" for name in fitting[:1]]
    for key, value in base.items():
        if isinstance(value, Mapping):
            choices += group_choices(conf, value, f"{path}/{key}".lstrip("/"))
    return choices


def derived(
    base: Mapping[str, Any],
    composed: Mapping[str, Any],
    defaults: Mapping[str, Any],
    given: Collection[str],
) -> RunConfig:
    """Return the configuration `base` of a run, changed by what a command line says.

    That is what was `given` (dotted keys, and blocks of groups), and what else of `composed`
    differs from the `defaults`.
    """
    values = _overlay(base, composed, defaults, given)
    if composed["resume"] is not None:
        return load(values | {"resume": composed["resume"]})
    checkpoint = checkpoint_of(Path(composed["init_from"]).expanduser())
    values |= {key: composed[key] for key in OWN}
    values |= {"resume": None, "init_from": str(checkpoint)}
    if not _is_changed("tokenizer", composed, defaults, given):
        run = checkpoint.parents[1]
        if not (run / TOKENIZER).is_dir():
            raise ConfigError(
                "init_from",
                f"{run} has no {TOKENIZER}/, which version 0.1 did not keep; "
                f"python train.py resume={run} adds it",
            )
        values["tokenizer"] = {"kind": "saved", "path": str(run / TOKENIZER)}
    for key, value in flatten(values).items():
        if value == MISSING:
            raise ConfigError(key, "missing; give it a value")
    return load(values)


def _overlay(
    base: Any, composed: Any, defaults: Any, given: Collection[str], path: str = ""
) -> Any:
    """Return `base` with every value of `composed` that was given or differs from the defaults."""
    blocks = all(isinstance(part, Mapping) for part in (base, composed, defaults))
    if path in given or not blocks or composed.get("kind") != defaults.get("kind"):
        return composed
    result = dict(base)
    for key in composed:
        if _is_changed(key, composed, defaults, given, path):
            inside = f"{path}.{key}".lstrip(".")
            result[key] = _overlay(base.get(key), composed[key], defaults.get(key), given, inside)
    return result


def _is_changed(
    key: str,
    composed: Mapping[str, Any],
    defaults: Mapping[str, Any],
    given: Collection[str],
    path: str = "",
) -> bool:
    inside = f"{path}.{key}".lstrip(".")
    return composed[key] != defaults.get(key) or any(
        name == inside or name.startswith(f"{inside}.") for name in given
    )
