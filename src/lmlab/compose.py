"""The command line: Hydra composes, `load` checks, the task runs."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lmlab.arguments import for_hydra, quote_paths
from lmlab.config import RunConfig, did_you_mean, keys_at, load, load_yaml, unknown_key
from lmlab.errors import ConfigError, UserError, explain_os_error
from lmlab.files import remove_if_empty
from lmlab.help import help_text
from lmlab.runs.names import run_directory

DEFAULT_LAUNCHER = "basic"
"""Hydra's name for: none chosen; a sweep then runs with `local`."""


def main(conf: Path) -> None:
    """Compose from the folder `conf`, check, train; a mistake is one line and exit code 1."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand exceptions to us instead of printing them
    register_resolvers(conf)
    command: Callable[[], Any] = hydra.main(
        version_base="1.3", config_path=str(conf.resolve()), config_name="config"
    )(_run)
    try:
        sys.argv[1:] = for_hydra(sys.argv[1:])
        command()
    except (UserError, HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        fail(explain(error))
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
            return load(hydra.compose("config", overrides=quote_paths(overrides)))
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(explain(error)) from error


def fail(message: str) -> None:
    """Print one line on stderr and exit with 1."""
    print(message, file=sys.stderr)
    sys.exit(1)


def register_resolvers(conf: Path) -> None:
    """Make the functions that `conf/config.yaml` calls known to OmegaConf."""
    OmegaConf.register_new_resolver("run_dir", run_directory, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("help_text", lambda: help_text(conf), replace=True)


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


def explain(error: Exception) -> str:
    """Put an error of the user, of Hydra or of OmegaConf into one line in the user's terms."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingConfigException):
        return _explain_missing(error)
    if isinstance(error, OverrideParseException):
        problem = str(error).splitlines()[0].rstrip(".")
        return f"config error at '{error.override}': cannot be read as an override ({problem})"
    text = str(error)
    cause = error.__cause__
    if match := re.match(r"Could not override '([^']+)'\.(?: No match)?", text):
        path = match[1].split("@")[0].replace("/", ".").lstrip(".")
        *parents, key = path.split(".")
        if key in keys_at(parents) and "is not in struct" not in str(cause):
            return f"config error at '{path}': {str(cause or error).splitlines()[0]}"
        return str(ConfigError(path, unknown_key(path.split("."))))
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"config error: {mark.name}, line {mark.line + 1}: {error.problem}"
    return "config error: " + " ".join(line.strip() for line in text.splitlines() if line.strip())


def _explain_missing(error: MissingConfigException) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    options = [option for option in error.options or [] if option != choice]
    if not group or not options:
        return f"config error: {str(error).splitlines()[0]}"
    hint = did_you_mean(choice, options)
    problem = f"'{choice}' is not one of {', '.join(map(repr, options))}"
    return str(ConfigError(group, problem + (f" ({hint.removeprefix(', ')})" if hint else "")))
