"""The command line `python train.py`: Hydra composes, `load` checks, the task runs."""

import argparse
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lmlab.command import exit_code, printable
from lmlab.compose_errors import explain_composition_error
from lmlab.config import RunConfig, load, load_yaml
from lmlab.errors import UserError
from lmlab.files import remove_if_empty
from lmlab.help import help_text
from lmlab.runs.names import run_directory, run_signature

DEFAULT_LAUNCHER = "local"
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError)


def main(conf: Path, arguments: Sequence[str] | None = None) -> None:
    """Compose from the folder `conf`, check, train; exits with 1 after one line for a mistake."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    sys.exit(exit_code(lambda: _command(conf, given), explain=_explain))


def _command(conf: Path, arguments: list[str]) -> None:
    flags = _parse(arguments)
    if flags.help:
        print(help_text(conf), end="")
        return
    register_resolvers(conf)
    arguments = [argument for argument in arguments if argument not in ("--run", "-r")]
    if not any(argument.startswith("-") or _is_hydras(argument) for argument in arguments):
        _run_single(conf, arguments)
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises exceptions instead of printing them
    by_hydra = hydra.main(
        version_base="1.3", config_path=str(conf.resolve()), config_name="config"
    )(_run)
    sys.argv[1:] = arguments
    by_hydra()


def _parse(arguments: list[str]) -> argparse.Namespace:
    """Read Hydra's flags; raises UserError for flags that are unknown or exclude each other."""
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        flags, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(f"{error} (see `python train.py --help`)") from error
    if unknown:
        raise UserError(f"unknown option {unknown[0]} (see `python train.py --help`)")
    modes = [f"--{mode}" for mode in ("run", "multirun") if getattr(flags, mode)] + _shows(flags)
    if len(modes) > 1:
        raise UserError(f"{' and '.join(modes)} exclude each other; give one of them")
    if flags.resolve and not flags.cfg:
        raise UserError("--resolve takes effect only with --cfg: python train.py --cfg job")
    return flags


def _shows(flags: argparse.Namespace) -> list[str]:
    """Return the flags that print something instead of training."""
    names = ("cfg", "info", "hydra_help", "shell_completion")
    return [f"--{name.replace('_', '-')}" for name in names if getattr(flags, name)]


def _is_hydras(override: str) -> bool:
    """Whether an override changes Hydra's own configuration, not only the run's directory."""
    return bool(re.match(r"[+~]*hydra\b(?!\.run\.dir=)", override))


def _run_single(conf: Path, overrides: Sequence[str]) -> None:
    """Compose once, without making a directory, and run as `hydra.main` does."""
    with hydra.initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        config = hydra.compose("config", overrides=list(overrides), return_hydra_config=True)
    with open_dict(config.hydra):
        config.hydra.mode = RunMode.RUN
        config.hydra.runtime.output_dir = str(Path(config.hydra.run.dir).absolute())
    HydraConfig.instance().set_config(config)
    _run(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))


def _explain(error: Exception) -> str | None:
    if isinstance(error, COMPOSITION_ERRORS) or _raised_by_hydra(error):
        return explain_composition_error(error)
    return None


def _raised_by_hydra(error: Exception) -> bool:
    """Whether Hydra or OmegaConf raised it, which refuse some mistakes by plain Python errors."""
    if not isinstance(
        error, ValueError | TypeError | AssertionError | LookupError | AttributeError
    ):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    package = frame.f_globals.get("__name__", "").split(".")[0]
    return package in ("hydra", "omegaconf", "antlr4", "yaml")


def compose_run(conf: Path, overrides: Sequence[str]) -> RunConfig:
    """Return what `python train.py OVERRIDES` would run; a mistake is a UserError of one line."""
    register_resolvers(conf)
    try:
        with hydra.initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            return load(hydra.compose("config", overrides=list(overrides)))
    except Exception as error:
        text = _explain(error)
        if text is None:
            raise
        raise UserError(text) from error


def fail(message: str) -> None:
    """Print one line on stderr and exit with 1."""
    print(printable(message), file=sys.stderr)
    sys.exit(1)


def register_resolvers(conf: Path) -> None:
    """Make the functions that `conf/config.yaml` calls known to OmegaConf."""
    OmegaConf.register_new_resolver("run_dir", run_directory, replace=True, use_cache=True)
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
