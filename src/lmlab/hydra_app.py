"""The command line: Hydra composes, `load` checks, the task runs."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lmlab.compose_errors import explain_composition_error
from lmlab.config import RunConfig, load, plain_values
from lmlab.derive import derived, group_choices, parent_of
from lmlab.errors import UserError, explain_os_error
from lmlab.files import remove_if_empty
from lmlab.help import help_text
from lmlab.layout import run_of
from lmlab.runs.names import run_directory, run_signature
from lmlab.schema import flatten

DEFAULT_LAUNCHER = "local"


def main(conf: Path) -> None:
    """Compose from the folder `conf`, check, train; a mistake is one line and exit code 1."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand exceptions to us instead of printing them
    register_resolvers(conf)
    arguments = sys.argv[1:]

    def run(cfg: DictConfig) -> None:
        sys.argv[1:] = arguments  # what the user typed is what the run records
        _run(cfg)

    command: Callable[[], Any] = hydra.main(
        version_base="1.3", config_path=str(conf.resolve()), config_name="config"
    )(run)
    try:
        sys.argv[1:] = with_choices_of_parent(conf, arguments)
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


def compose(*overrides: str) -> RunConfig:
    """Return the configuration of `python train.py OVERRIDES`: `compose("model=small", "lr=3e-4")`.

    Raises ConfigError for what the command line would refuse.
    """
    return compose_run(find_conf(), overrides)


def find_conf() -> Path:
    """Return the folder `conf`: of the working directory, or else of the checkout of this code.

    Raises UserError when there is neither.
    """
    places = (Path.cwd(), Path(__file__).parents[2])
    for place in places:
        if (place / "conf" / "config.yaml").is_file():
            return place / "conf"
    raise UserError(f"no conf/config.yaml in {' or '.join(map(str, places))}")


def compose_run(conf: Path, overrides: Sequence[str]) -> RunConfig:
    """Return what `python train.py OVERRIDES` would run; a mistake is a UserError of one line."""
    register_resolvers(conf)
    try:
        with hydra.initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            overrides = with_choices_of_parent(conf, overrides)
            return run_config(hydra.compose("config", overrides=overrides), overrides)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(explain_composition_error(error)) from error


def fail(message: str) -> None:
    """Print one line on stderr and exit with 1."""
    print(message, file=sys.stderr)
    sys.exit(1)


def register_resolvers(conf: Path) -> None:
    """Make the functions that `conf/config.yaml` calls known to OmegaConf."""
    OmegaConf.register_new_resolver("run_dir", _run_directory, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("help_text", lambda: help_text(conf), replace=True)
    OmegaConf.register_new_resolver(
        "run_signature", lambda *, _root_: _signature(_root_), replace=True
    )


def run_config(cfg: DictConfig, overrides: Sequence[str]) -> RunConfig:
    """Check a composed configuration, and put it on top of the run that it names, if any.

    Must be called while Hydra is initialised.
    """
    cfg = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    base = parent_of(cfg.get("resume"), cfg.get("init_from"))
    if base is None:
        return load(cfg)
    loader = GlobalHydra.instance().config_loader()
    (conf,) = (p.path for p in loader.get_search_path().get_path() if p.provider == "main")
    choices = group_choices(Path(conf.removeprefix("file://")), base)
    inherited = [override for override in overrides if override in choices]
    own = [override for override in overrides if override not in choices]
    defaults = loader.load_configuration("config", inherited, RunMode.RUN)
    return derived(
        base,
        plain_values(cfg, missing=True),
        plain_values(OmegaConf.masked_copy(defaults, list(cfg)), missing=True),
        _given_keys(cfg, own),
    )


def with_choices_of_parent(conf: Path, overrides: Sequence[str]) -> list[str]:
    """Return the overrides after the choices of groups of the run that they build on, if any.

    `init_from=RUN data.paths=[...]` needs them: the default corpus has no such key.
    """
    named = {}
    for override in overrides:
        if match := re.fullmatch(r"(resume|init_from)=(.+)", override):
            with contextlib.suppress(OverrideParseException):
                named[match[1]] = OverridesParser.create().parse_override(override).value()
    try:
        base = parent_of(*(_text(named.get(key)) for key in ("resume", "init_from")))
    except UserError:  # said when the configuration is checked
        base = None
    if base is None:
        return list(overrides)
    given = {override.partition("=")[0].lstrip("+~") for override in overrides}
    choices = group_choices(conf, base)
    return [c for c in choices if c.partition("=")[0] not in given] + list(overrides)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _given_keys(cfg: DictConfig, overrides: Sequence[str]) -> set[str]:
    """Return the dotted keys and blocks that overrides set, and those that are read from them."""
    given = {
        override.key_or_group.replace("/", ".")
        for override in OverridesParser.create().parse_overrides(list(overrides))
    }
    raw = flatten(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[arg-type]
    references = {key: re.findall(r"\$\{([\w.]+)\}", str(value)) for key, value in raw.items()}
    return given | {key for key, read in references.items() if given.intersection(read)}


def _run_directory(name: str, resume: str | None) -> str:
    return run_directory(name, None if resume is None else str(run_of(Path(resume))))


def _signature(root: Any) -> str:
    overrides = list(root.hydra.overrides.task)
    return run_signature(overrides, run_config(root, overrides).fingerprint())


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
    elif cfg.resume is not None:
        raise UserError("resume= continues a single run; leave out -m, or use lmlab sweep resume")
    return run_config(cfg, settings.overrides.task)
