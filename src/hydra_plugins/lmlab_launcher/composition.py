"""Composing the jobs of a sweep in a fraction of the time that Hydra takes."""

import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import filter_overrides
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lmlab.cluster.submission import Job
from lmlab.config import difference
from lmlab.errors import ConfigError, UserError
from lmlab.hydra_app import run_config


def checked_jobs(
    loader: ConfigLoader, master: DictConfig, batch: Sequence[Sequence[str]], first: int = 0
) -> list[Job]:
    """Return the runs of a sweep; raises UserError, naming the job, for the first that is wrong."""
    jobs = []
    common = set(batch[0]).intersection(*batch) if len(batch) > 1 else set()
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
                directory = Path(config.hydra.sweep.dir, config.hydra.sweep.subdir).absolute()
            except ConfigError as error:
                raise UserError(f"{error} (job {index + 1} of {len(batch)}: {settings})") from error
            jobs.append(Job(directory, checked, settings))
    finally:
        HydraConfig.instance().cfg = saved
    _require_own_directories(jobs)
    return jobs


def _require_own_directories(jobs: Sequence[Job]) -> None:
    """Refuse a directory for two runs that differ; the same run twice is one."""
    first: dict[Path, Job] = {}
    for job in jobs:
        other = first.setdefault(job.directory, job)
        if changes := difference(other.config, job.config):
            raise UserError(
                f"{os.path.relpath(job.directory)} would be the directory of two runs ({changes}); "
                "let hydra.sweep.subdir= tell them apart"
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
        except OmegaConfBaseException:  # Hydra knows how to say what is wrong
            config = loader.load_sweep_config(master, list(overrides))
        config.hydra.overrides.task = list(overrides)
        yield config


def _is_value(override: Override) -> bool:
    """Whether the override sets a key, `lr=1e-3`, or chooses of a group; not `+new=1`."""
    if override.is_add() or override.is_force_add() or override.is_delete():
        return False
    inside = override.key_or_group.split(".")[0]
    return override.package is None and inside != "hydra" and not isinstance(override.value(), dict)
