"""Launchers that check every job of a sweep before any starts, and a sweeper that lets them.

`hydra/launcher=local` runs the jobs one after the other in this process, `submitit_local` a few at
a time in processes of their own, `submitit_slurm` as one array of a Slurm cluster.
"""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore

from hydra_plugins.lmlab_launcher.launchers import LocalLauncher, SubmititLocal, SubmititSlurm
from hydra_plugins.lmlab_launcher.sweeper import GridSweeper

__all__ = ["GridSweeper", "LocalLauncher", "SubmititLocal", "SubmititSlurm"]
_HERE = "hydra_plugins.lmlab_launcher"


@dataclass
class LocalConfig:
    """One after the other, in this process."""

    _target_: str = f"{_HERE}.launchers.LocalLauncher"


@dataclass
class SubmititLocalConfig:
    """In processes of their own, `parallel` at a time."""

    _target_: str = f"{_HERE}.launchers.SubmititLocal"
    parallel: int = 2


@dataclass
class SubmititSlurmConfig:
    """As one array of a Slurm cluster; `wait`: return when all jobs have ended."""

    _target_: str = f"{_HERE}.launchers.SubmititSlurm"
    wait: bool = False


@dataclass
class GridConfig:
    """Every combination of the axes."""

    _target_: str = f"{_HERE}.sweeper.GridSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


_NODES: list[tuple[str, str, Any]] = [
    ("launcher", "local", LocalConfig),
    ("launcher", "submitit_local", SubmititLocalConfig),
    ("launcher", "submitit_slurm", SubmititSlurmConfig),
    ("sweeper", "grid", GridConfig),
]
for _group, _name, _node in _NODES:
    ConfigStore.instance().store(group=f"hydra/{_group}", name=_name, node=_node, provider="lmlab")
