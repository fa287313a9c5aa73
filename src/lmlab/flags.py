"""Hydra's flags on the command line `python train.py`, checked before Hydra sees them."""

import argparse
import re

from hydra._internal.utils import get_args_parser

from lmlab.errors import UserError


def parse_flags(arguments: list[str]) -> argparse.Namespace:
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


def concerns_hydra(override: str) -> bool:
    """Whether an override changes Hydra's own configuration, not only the run's directory."""
    return bool(re.match(r"[+~]*hydra\b(?!\.run\.dir=)", override))
