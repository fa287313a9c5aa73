"""The command line: Hydra composes, `load` checks, the task runs."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lmlab.compose_errors import explain_composition_error
from lmlab.config import RunConfig, load, load_yaml
from lmlab.errors import UserError, explain_os_error
from lmlab.files import remove_if_empty
from lmlab.help import help_text
from lmlab.runs.names import run_directory, run_signature

DEFAULT_LAUNCHER = "local"


def main(conf: Path) -> None:
    """Compose from the folder `conf`, check, train; a mistake is one line and exit code 1."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand exceptions to us instead of printing them
    register_resolvers(conf)
    command: Callable[[], Any] = hydra.main(
        version_base="1.3", config_path=str(conf.resolve()), config_name="config"
    )(_run)
    try:
        command()
    except (UserError, HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        fail(explain_composition_error(error))
    except OSError as error:
        text = explain_os_error(error)
        if text is None:
            raise
        fail(text)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def compose_run(conf: Path, overrides: Sequence[str]) -> RunConfig:
    """Return what `python train.py OVERRIDES` would run; a mistake is a UserError of one line."""
    register_resolvers(conf)
    try:
        with hydra.initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            return load(hydra.compose("config", overrides=list(overrides)))
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(explain_composition_error(error)) from error


def fail(message: str) -> None:
    """Print one line on stderr and exit with 1."""
    print(message, file=sys.stderr)
    sys.exit(1)


def register_resolvers(conf: Path) -> None:
    """Make the functions that `conf/config.yaml` calls known to OmegaConf."""
    OmegaConf.register_new_resolver("run_dir", run_directory, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("help_text", lambda: help_text(conf), replace=True)
    OmegaConf.register_new_resolver(
        "run_signature", lambda *, _root_: _signature(_root_), replace=True
    )


def _signature(root: Any) -> str:
    task = OmegaConf.masked_copy(root, [key for key in root if key != "hydra"])
    return run_signature(list(root.hydra.overrides.task), load(task).fingerprint())


def _run(cfg: DictConfig) -> None:
    try:
        _train(cfg)
    except UserError as error:  # here, because Hydra prints "Error executing job" before raising
        fail(str(error))


def _train(cfg: DictConfig) -> None:
    settings = HydraConfig.get()
    directory = Path(settings.runtime.output_dir)
    try:
        config = _checked(cfg, settings, directory)
    except UserError:
        remove_if_empty(directory)  # Hydra has made it for a run that never began
        raise
    from lmlab.task import run

    run(config, directory)


def _checked(cfg: DictConfig, settings: Any, directory: Path) -> RunConfig:
    choices = settings.runtime.choices
    if settings.mode.name == "RUN":
        for group, unswept in (("sweep", None), ("hydra/launcher", DEFAULT_LAUNCHER)):
            choice = choices.get(group)
            if choice not in (unswept, None):
                option = f"{group}={choice}"
                raise UserError(f"{option} takes effect only with -m: python train.py -m {option}")
    others = [o for o in settings.overrides.task if not o.startswith("resume=")]
    if cfg.resume is not None and not others:
        return load_yaml(directory / "config.yaml")
    return load(cfg)
