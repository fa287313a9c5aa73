"""Launchers that check every job of a sweep before any starts, and their sweeper.

`hydra/launcher=local` runs the jobs one after the other in this process, `submitit_local` a few at
a time in separate processes, `submitit_slurm` as one array of a Slurm cluster; `show` prints them.

| file | content |
| --- | --- |
| `composition.py` | the jobs of a sweep: composed, checked, each with its directory |
| `launchers.py` | the launchers: they hand the jobs to `lmlab.cluster` |
| `sweeper.py` | every combination of the axes |
"""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore

from hydra_plugins.lmlab_launcher.launchers import (
    LocalLauncher,
    ShowLauncher,
    SubmititLocal,
    SubmititSlurm,
)
from hydra_plugins.lmlab_launcher.sweeper import GridSweeper

__all__ = ["GridSweeper", "LocalLauncher", "ShowLauncher", "SubmititLocal", "SubmititSlurm"]
_HERE = "hydra_plugins.lmlab_launcher"


@dataclass
class LocalConfig:
    """One after the other, in this process."""

    _target_: str = f"{_HERE}.launchers.LocalLauncher"


@dataclass
class SubmititLocalConfig:
    """In separate processes, `parallel` at a time."""

    _target_: str = f"{_HERE}.launchers.SubmititLocal"
    parallel: int = 2


@dataclass
class SubmititSlurmConfig:
    """As one array of a Slurm cluster; `wait`: return when all jobs have exited."""

    _target_: str = f"{_HERE}.launchers.SubmititSlurm"
    wait: bool = False


@dataclass
class ShowConfig:
    """Prints the configurations and runs nothing: `-m --cfg job`."""

    _target_: str = f"{_HERE}.launchers.ShowLauncher"


@dataclass
class GridConfig:
    """Every combination of the axes."""

    _target_: str = f"{_HERE}.sweeper.GridSweeper"
    params: dict[str, str] | None = None


_NODES: list[tuple[str, str, Any]] = [
    ("launcher", "local", LocalConfig),
    ("launcher", "submitit_local", SubmititLocalConfig),
    ("launcher", "submitit_slurm", SubmititSlurmConfig),
    ("launcher", "show", ShowConfig),
    ("sweeper", "grid", GridConfig),
]
for _group, _name, _node in _NODES:
    ConfigStore.instance().store(group=f"hydra/{_group}", name=_name, node=_node, provider="lmlab")
