"""Composing the jobs of a sweep in a fraction of the time that Hydra takes."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import filter_overrides
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lmlab.cluster.existing_runs import ExistingRuns
from lmlab.cluster.submission import Job
from lmlab.config import difference
from lmlab.errors import ConfigError, UserError
from lmlab.hydra_app import run_config
from lmlab.runs.names import sweep_run_name
from lmlab.schema import flatten

AUTOMATIC = "auto"
"""As `hydra.sweep.subdir`: a directory is named by what varies."""
NOT_NAMED = ("name", "resume", "logger", "slurm", "hydra", "sweep")
"""Keys that the fingerprint leaves out, or that only say where the axes are from."""


def checked_jobs(
    loader: ConfigLoader, master: DictConfig, batch: Sequence[Sequence[str]], first: int = 0
) -> list[Job]:
    """Return the runs of a sweep; raises UserError, naming the job, for the first that is wrong."""
    jobs = []
    common = set(batch[0]).intersection(*batch) if len(batch) > 1 else set()
    axes = _axes(master, batch)
    existing: dict[Path, ExistingRuns] = {}
    saved = HydraConfig.instance().cfg
    try:
        for index, config in enumerate(composed(loader, master, batch)):
            with open_dict(config):
                config.hydra.job.num, config.hydra.job.id = first + index, str(first + index)
            own = [
                override for override in filter_overrides(batch[index]) if override not in common
            ]
            settings = " ".join(own)
            try:
                HydraConfig.instance().cfg = config  # type: ignore[assignment]
                checked = run_config(config, filter_overrides(batch[index]))
                folder = Path(config.hydra.sweep.dir).absolute()
                if config.hydra.sweep.subdir == AUTOMATIC:
                    if folder not in existing:
                        existing[folder] = ExistingRuns(folder)
                    fingerprint = checked.fingerprint()
                    values = _values(batch[index], axes, flatten(checked.model_dump()))
                    name = sweep_run_name(values, fingerprint)
                    directory = existing[folder].find(fingerprint) or folder / name
                else:
                    directory = folder / config.hydra.sweep.subdir
            except ConfigError as error:
                raise UserError(f"{error} (job {index + 1} of {len(batch)}: {settings})") from error
            jobs.append(Job(directory, checked, settings))
    finally:
        HydraConfig.instance().cfg = saved
    _require_own_directories(jobs)
    return jobs


def _axes(master: DictConfig, batch: Sequence[Sequence[str]]) -> list[str]:
    """Return what names the runs: the keys of the sweep's file, and those whose values differ.

    The seed names a sweep of one run.
    """
    declared = list(master.hydra.sweeper.get("params") or ())
    values: dict[str, set[str]] = {}
    for overrides in batch:
        for key, value in _split(overrides):
            values.setdefault(key, set()).add(value)
    varied = [key for key, seen in values.items() if len(seen) > 1]
    axes = dict.fromkeys(key for key in (*declared, *varied) if not key.startswith(NOT_NAMED))
    return list(axes) or ["seed"]


def _values(
    overrides: Sequence[str], axes: Sequence[str], config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values of the axes for one job: as checked for a key, the choice for a group."""
    given = dict(_split(overrides))
    return {
        key: value
        for key in axes
        if (value := config.get(key, given.get(key))) is not None or key in config
    }


def _split(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    for override in overrides:
        key, _, value = override.partition("=")
        yield key.lstrip("+~").partition("@")[0], value


def _require_own_directories(jobs: Sequence[Job]) -> None:
    """Refuse a directory for two runs that differ; the same run twice is one."""
    first: dict[Path, Job] = {}
    for job in jobs:
        other = first.setdefault(job.directory, job)
        if changes := difference(other.config, job.config):
            raise UserError(
                f"{os.path.relpath(job.directory)} would be the directory of two runs ({changes}); "
                "give each its own with hydra.sweep.subdir="
            )


def composed(
    loader: ConfigLoader, master: DictConfig, batch: Sequence[Sequence[str]]
) -> Iterator[DictConfig]:
    """Yield what `loader.load_sweep_config` returns for each job, good until the next one is asked.

    Jobs that set the same keys to different values share one composition, in which the values are
    set anew for each, as Hydra itself does it at the end.
    """
    parser = OverridesParser.create()
    shared: dict[tuple[str, ...], DictConfig] = {}
    groups = cache(lambda key: bool(loader.get_group_options(key, ObjectType.CONFIG)))
    # a directory's name made of hydra.job.override_dirname is known to a whole composition alone
    sharing = "override_dirname" not in OmegaConf.to_yaml(master.hydra.sweep)
    for overrides in batch:
        parsed = parser.parse_overrides(list(overrides))
        values = [o for o in parsed if sharing and _is_value(o) and not groups(o.key_or_group)]
        lines = {o.input_line for o in values}
        rest = [line for line in overrides if line not in lines]
        key = (*rest, "", *(o.key_or_group for o in values))
        if key not in shared:
            shared[key] = loader.load_sweep_config(master, rest)
        config = shared[key]
        try:
            for override in values:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except OmegaConfBaseException:  # Hydra's own message says what is wrong
            config = loader.load_sweep_config(master, list(overrides))
        config.hydra.overrides.task = list(overrides)
        yield config


def _is_value(override: Override) -> bool:
    """Whether the override sets a key, `lr=1e-3`, or chooses of a group; not `+new=1`."""
    if override.is_add() or override.is_force_add() or override.is_delete():
        return False
    inside = override.key_or_group.split(".")[0]
    return override.package is None and inside != "hydra" and not isinstance(override.value(), dict)
