"""The launcher `local`: checks every job of a sweep, then runs them one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, filter_overrides
from omegaconf import OmegaConf


class LocalLauncher(BasicLauncher):
    """Runs the jobs of a sweep in this process, one after the other."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Load every job's configuration, then run them; raises ConfigError before any starts."""
        from lmlab.config import load

        assert self.hydra_context is not None
        assert self.config is not None
        for overrides in job_overrides:
            job = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            load(OmegaConf.masked_copy(job, [str(key) for key in job if key != "hydra"]))
        returns: list[JobReturn] = []
        for index, overrides in enumerate(job_overrides):
            text = " ".join(filter_overrides(overrides))
            print(f"run {index + 1} of {len(job_overrides)}: {text}", flush=True)
            returns += super().launch([overrides], initial_job_idx + index)
        return returns


@dataclass
class LocalLauncherConfig:
    """Hydra's node of this launcher."""

    _target_: str = "hydra_plugins.lmlab_launcher.LocalLauncher"


ConfigStore.instance().store(
    group="hydra/launcher", name="local", node=LocalLauncherConfig, provider="lmlab"
)
