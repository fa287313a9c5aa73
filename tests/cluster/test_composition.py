"""The fast composition of a sweep's jobs against Hydra's own."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.lmlab_launcher.composition import composed
from lmlab.hydra_app import register_resolvers
from tests_support import CONF, ROOT

FOLDER = ROOT / "sweeps"
SWEEPS = sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob("*.yaml"))
LINES = [
    ["model=tiny,small", "lr=1e-3,1e-2"],
    ["lr=1e-3,1e-2", "model.d_model=96,192", "+slurm.extra.mail-type=END"],
    ["model/ffn=glu,mlp", "model.ffn.activation=silu"],
    ["optimizer=adamw,sgd", "optimizer.lr=0.1,0.2", "schedule.warmup=0.1"],
    ["data=text", "data.paths=[a.txt],[b.txt,c.txt]", "seed=range(2)"],
    ["+model.extra={a: 1},{b: 2}", "lr=1,2"],
    ["~slurm.setup", "lr=1,2"],
]


def jobs(line: list[str]) -> list[list[str]]:
    parsed = OverridesParser.create().parse_overrides(line)
    return [list(job) for job in BasicSweeper.split_arguments(parsed, None)[0]]


def sweep_line(name: str) -> list[str]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=[f"sweep={name}"], return_hydra_config=True)
    params = config.hydra.sweeper.params
    return [f"sweep={name}", *(f"{key}={value}" for key, value in params.items())]


def shown(config: DictConfig) -> str:
    """Return all of a configuration but Hydra's part, as YAML."""
    return OmegaConf.to_yaml(OmegaConf.masked_copy(config, [k for k in config if k != "hydra"]))


@pytest.mark.parametrize("line", LINES + [[name] for name in SWEEPS], ids=str)
def test_equals_hydras_own(line: list[str], tmp_path: Path) -> None:
    batch = jobs(sweep_line(line[0]) if line[0] in SWEEPS else line)
    batch = batch[:6] + batch[-2:]
    register_resolvers(CONF)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", [], RunMode.MULTIRUN)
        master.hydra.job.config_name = "config"
        for job, fast in zip(batch, composed(loader, master, batch), strict=True):
            slow = loader.load_sweep_config(master, list(job))
            assert shown(fast) == shown(slow)
            assert list(fast.hydra.overrides.task) == list(slow.hydra.overrides.task) == job
