"""A configuration on top of another run's: what `resume=` and `init_from=` mean."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lmlab.config import RunConfig, load, read_yaml
from lmlab.errors import ConfigError
from lmlab.layout import CONFIG, TOKENIZER, checkpoint_of, run_of
from lmlab.migrations import migrated

OWN = ("name", "slurm", "logger", "init_optimizer")
"""Keys that a run with a parent has from the command line, not from its parent."""


def derived(
    composed: Mapping[str, Any], defaults: Mapping[str, Any], given: Collection[str]
) -> RunConfig:
    """Return what a composed configuration means, given the one without any override.

    With `resume` or `init_from` it is that run's configuration, changed by what was `given` (dotted
    keys, and the blocks of groups) and by what else differs from the defaults.
    """
    resume, init_from = (composed.get(key) for key in ("resume", "init_from"))
    if resume is None and init_from is None:
        return load(composed)
    if resume is not None and init_from is not None:
        raise ConfigError("init_from", "starts a new run, resume= continues one; give one of them")
    path = Path(str(resume or init_from)).expanduser()
    run = run_of(path)
    base = migrated(read_yaml(run / CONFIG))
    values = _overlay(base, composed, defaults, given)
    if resume is not None:
        return load(values | {"resume": str(path)})
    checkpoint = checkpoint_of(path)
    values |= {key: composed[key] for key in OWN}
    values |= {"resume": None, "init_from": str(checkpoint)}
    if not _is_changed("tokenizer", composed, defaults, given):
        folder = checkpoint.parents[1] / TOKENIZER
        if not folder.is_dir():
            raise ConfigError(
                "init_from",
                f"{run} has no {TOKENIZER}/, which version 0.1 did not keep; "
                f"python train.py resume={run} adds it",
            )
        values["tokenizer"] = {"kind": "saved", "path": str(folder)}
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
