"""Overrides that are refused: what nothing would read, what removes a needed key or nothing."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from lmlab.errors import ConfigError
from lmlab.task.config import TaskConfig

READ_HERE = frozenset({"nodes", "tasks_per_node", "gpus_per_node", "setup", "code"})
"""Keys of `slurm` that hydra/launcher=submitit_local reads."""


def check_slurm(overrides: Sequence[str], read: Collection[str] = ()) -> None:
    """Raise ConfigError for an override of `slurm` when only the keys `read` of it are read."""
    for key in _keys(overrides, "slurm"):
        name = (*key.split("."), "")[1]
        if name not in read:
            launchers = ["submitit_slurm", *(["submitit_local"] if name in READ_HERE else [])]
            raise ConfigError(
                key,
                f"takes effect only with -m hydra/launcher={' or '.join(launchers)}; "
                "add that, or leave it out",
            )


def check_directory(overrides: Sequence[str], *, multirun: bool) -> None:
    """Raise ConfigError for an override of the directory of the other mode."""
    if multirun:
        for key in _keys(overrides, "hydra.run"):
            raise ConfigError(
                key, "takes effect only without -m; the runs of a sweep are in hydra.sweep.dir"
            )
    else:
        for key in _keys(overrides, "hydra.sweep"):
            raise ConfigError(key, "takes effect only with -m; a single run is in hydra.run.dir")


def check_task(overrides: Sequence[str], task: TaskConfig) -> None:
    """Raise ConfigError for an override of `data` or `trainer` that the task does not read."""
    if task.kind == "pretrain":
        return
    if task.kind in ("sft", "dpo"):
        unread = {
            "data": f"task={task.kind} reads task.examples instead",
            "trainer.eval_windows": f"task={task.kind} evaluates all examples that are held out",
        }
    else:
        rises = f"the loss of task={task.kind} need not fall"
        unread = {
            "data": f"task={task.kind} reads task.problems instead",
            "trainer.eval_windows": f"task={task.kind} reads task.evaluation.problems instead",
            "trainer.max_loss_rise": rises,
            "trainer.divergence_patience": rises,
        }
    for block, reason in unread.items():
        for key in _keys(overrides, block):
            raise ConfigError(key, f"{reason}; leave it out")


def check_removed(overrides: Sequence[str], needed: Collection[str]) -> None:
    """Raise ConfigError for an override such as `~lr` that removes a key that is needed."""
    for override in overrides:
        key = override[1:].partition("=")[0]
        if override.startswith("~") and key in needed:
            raise ConfigError(key, f"every run needs it; leave out {override}")


def check_emptied(overrides: Sequence[str], values: Mapping[str, Any]) -> None:
    """Raise ConfigError for an override such as `members={}`: Hydra merges it, so it does nothing.

    `values` are those of the composed configuration.
    """
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if re.fullmatch(r"\{\s*\}", value):
            found: Any = values
            for name in key.split("."):
                found = found.get(name) if isinstance(found, Mapping) else None
            if isinstance(found, Mapping) and found:
                names = [f"~{key}.{name}" for name in found]
                raise ConfigError(key, f"{{}} removes no entry; remove them with {' '.join(names)}")


def _keys(overrides: Sequence[str], block: str) -> Iterable[str]:
    """Yield the keys of overrides at and below `block`."""
    for override in overrides:
        key = re.split("[=@]", override.lstrip("+~"))[0]
        if key == block or key.startswith(f"{block}."):
            yield key
