"""The command line: Hydra composes, `load` checks, the task runs."""

import contextlib
import gc
import os
import re
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lmlab.arguments import for_hydra, quote_paths, require_keys
from lmlab.command import exit_code, printable
from lmlab.compose_errors import explain_composition_error
from lmlab.config import RunConfig, load, plain_values
from lmlab.derive import derived, group_choices, parent_of
from lmlab.errors import UserError
from lmlab.files import remove_if_empty
from lmlab.flags import concerns_hydra, parse_flags
from lmlab.help import help_text
from lmlab.inherited import inherited_choices
from lmlab.layout import run_of
from lmlab.locations import find_conf
from lmlab.refused import (
    check_directory,
    check_emptied,
    check_removed,
    check_slurm,
    check_task,
)
from lmlab.runs.names import run_directory
from lmlab.schema import flatten
from lmlab.training.budget import check_budget

DEFAULT_LAUNCHER = "basic"
"""Hydra's choice when none is named; a sweep then uses `local`."""
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError)


def main(conf: Path, arguments: Sequence[str] | None = None) -> None:
    """Compose from the folder `conf`, check, train; exits with 1 after one line for a mistake."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    gc.disable()  # until the task runs: composition leaves little to collect
    try:
        code = exit_code(lambda: _command(conf, given), explain=partial(_explain, given))
    finally:
        gc.enable()
    sys.exit(code)


def _command(conf: Path, arguments: list[str]) -> None:
    require_keys(arguments)
    arguments = for_hydra(arguments)
    flags = parse_flags(arguments)
    if flags.help:
        print(help_text(conf), end="")
        return
    register_resolvers(conf)
    arguments = [argument for argument in arguments if argument not in ("--run", "-r")]
    if not any(argument.startswith("-") or concerns_hydra(argument) for argument in arguments):
        _run_single(conf, arguments)
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises exceptions instead of printing them
    given = sys.argv[1:]

    def run(cfg: DictConfig) -> None:
        sys.argv[1:] = given  # what the user typed is what the run records
        _run(cfg)

    by_hydra = hydra.main(
        version_base="1.3", config_path=str(conf.resolve()), config_name="config"
    )(run)
    sys.argv[1:] = with_choices_of_parent(conf, arguments)
    gc.enable()  # a sweep's launcher may train in this process
    by_hydra()


def _run_single(conf: Path, overrides: Sequence[str]) -> None:
    """Compose once, without making a directory, and run as `hydra.main` does."""
    with hydra.initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        overrides = with_choices_of_parent(conf, overrides)
        config = hydra.compose("config", overrides=list(overrides), return_hydra_config=True)
        with open_dict(config.hydra):
            config.hydra.mode = RunMode.RUN
            config.hydra.runtime.output_dir = str(Path(config.hydra.run.dir).absolute())
        HydraConfig.instance().set_config(config)
        _run(config)


def _explain(overrides: Sequence[str], error: Exception) -> str | None:
    """Return one line for an error of the composition; None for an error of the task."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    if _run_task.__code__ in codes:
        return None
    if isinstance(error, COMPOSITION_ERRORS) or raised_by_hydra(error):
        return explain_composition_error(error, overrides=overrides)
    return None


def raised_by_hydra(error: Exception) -> bool:
    """Whether Hydra or OmegaConf raised it: they report some mistakes as plain Python errors."""
    if not isinstance(
        error, ValueError | TypeError | AssertionError | LookupError | AttributeError
    ):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    package = frame.f_globals.get("__name__", "").split(".")[0]
    return package in ("hydra", "omegaconf", "antlr4", "yaml")


def compose(*overrides: str) -> RunConfig:
    """Return the configuration of `python train.py OVERRIDES`: `compose("model=small", "lr=3e-4")`.

    Raises ConfigError for what the command line would refuse.
    """
    return compose_run(find_conf(), overrides)


def compose_run(conf: Path, overrides: Sequence[str]) -> RunConfig:
    """Return what `python train.py OVERRIDES` would run; a mistake is a UserError of one line."""
    register_resolvers(conf)
    require_keys(overrides)
    overrides = quote_paths(overrides)
    try:
        with hydra.initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            overrides = with_choices_of_parent(conf, overrides)
            return run_config(hydra.compose("config", overrides=overrides), overrides)
    except Exception as error:
        text = _explain(overrides, error)
        if text is None:
            raise
        raise UserError(text) from error


def fail(message: str) -> None:
    """Print one line on stderr and exit with 1."""
    print(printable(message), file=sys.stderr)
    sys.exit(1)


def register_resolvers(conf: Path) -> None:
    """Make the functions that `conf/config.yaml` calls known to OmegaConf."""
    OmegaConf.register_new_resolver("run_dir", _run_directory, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("inverse_width", _inverse_width, replace=True)
    OmegaConf.register_new_resolver("tokens_for", _tokens_for, replace=True)
    OmegaConf.register_new_resolver("by_shape", _by_shape, replace=True)


def _inverse_width(rate: float, width: int, d_model: int) -> float:
    """Return a learning rate that is `rate` at `width` and falls in proportion to the width."""
    return float(f"{rate * width / d_model:.6g}")


def _tokens_for(flops: float, d_model: int, num_layers: int) -> int:
    """Return the tokens of C = 6 N D, with N = 12 L d^2 parameters without embeddings."""
    return int(flops / (6 * 12 * num_layers * d_model**2))


def _by_shape(values: str, d_model: int, num_layers: int) -> float:
    """Return the value of a shape from a list such as `64x1:1e-2|128x2:5e-3`."""
    return float(dict(pair.split(":") for pair in values.split("|"))[f"{d_model}x{num_layers}"])


def run_config(cfg: DictConfig, overrides: Sequence[str]) -> RunConfig:
    """Check a composed configuration, and put it on top of the run that it names, if any.

    Must be called while Hydra is initialised.
    """
    check_removed(overrides, RunConfig.model_fields)
    if "hydra" in cfg:
        cfg = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    check_emptied(overrides, plain_values(cfg, missing=True))
    base = parent_of(cfg.get("resume"), cfg.get("init_from"))
    config, own = (load(cfg), overrides) if base is None else _on_top_of(base, cfg, overrides)
    check_task(own, config.task)
    check_budget(config.budget, config.tokens_per_step())
    return config


def _on_top_of(
    base: dict[str, Any], cfg: DictConfig, overrides: Sequence[str]
) -> tuple[RunConfig, list[str]]:
    """Return the configuration on top of a run's, and the overrides that are not inherited."""
    loader = GlobalHydra.instance().config_loader()
    (conf,) = (p.path for p in loader.get_search_path().get_path() if p.provider == "main")
    choices = group_choices(Path(conf.removeprefix("file://")), base)
    inherited = [override for override in overrides if override in choices]
    own = [override for override in overrides if override not in choices]
    defaults = loader.load_configuration("config", inherited, RunMode.RUN)
    config = derived(
        base,
        plain_values(cfg, missing=True),
        plain_values(OmegaConf.masked_copy(defaults, list(cfg)), missing=True),
        _given_keys(cfg, own),
    )
    return config, own


def with_choices_of_parent(conf: Path, overrides: Sequence[str]) -> list[str]:
    """Return the command line, extended by the group choices of the run it builds on, if any.

    `init_from=RUN data.paths=[...]` needs them: the default corpus has no such key. They stand
    before the first override, after options such as -m.
    """
    named = {}
    for override in overrides:
        if match := re.fullmatch(r"(resume|init_from)=(.+)", override):
            with contextlib.suppress(HydraException):
                named[match[1]] = OverridesParser.create().parse_override(override).value()
    try:
        base = parent_of(*(_text(named.get(key)) for key in ("resume", "init_from")))
    except UserError:  # said when the configuration is checked
        base = None
    if base is None:
        return list(overrides)
    first = next(i for i, text in enumerate(overrides) if re.match(r"[^-].*=", text))
    missing = inherited_choices(conf, base, overrides)
    return [*overrides[:first], *missing, *overrides[first:]]


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
    _run_task(config, directory)


def _run_task(config: RunConfig, directory: Path) -> None:
    """Run the task; errors from here on are not explained as those of a configuration."""
    from lmlab.task import run

    gc.enable()
    run(config, directory)


def _checked(cfg: DictConfig, settings: Any, directory: Path) -> RunConfig:
    choices = settings.runtime.choices
    for group, unswept in (("sweep", None), ("hydra/launcher", DEFAULT_LAUNCHER)):
        choice = choices.get(group)
        if choice not in (unswept, None):
            option = f"{group}={choice}"
            raise UserError(f"{option} takes effect only with -m: python train.py -m {option}")
    check_directory(settings.overrides.hydra, multirun=False)
    config = run_config(cfg, settings.overrides.task)
    check_slurm(settings.overrides.task)
    return config
