"""Arguments of command lines: numbers, and what Hydra accepts in another form only."""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from lmlab.errors import UserError

Number = TypeVar("Number", int, float)
PATHS = ("resume", "init_from", "hydra.run.dir")
"""Keys whose value is one path; those of a sweep's runs hold `=` and `,`."""
_REFUSED = re.compile(r"[^\w./:@%+*?|$\\{} -]", re.ASCII)
"""A character that Hydra's grammar refuses in text without quotes, or reads as more than text."""
_LAUNCHER = re.compile(r"\+*hydra[./]launcher\b")


def for_hydra(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with quoted paths; `-m --cfg job` is a sweep that prints its jobs."""
    quoted = quote_paths(arguments)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--cfg", "-c")
    try:
        chosen, rest = parser.parse_known_args(quoted)
    except argparse.ArgumentError:  # the message comes with the other flags
        return quoted
    if chosen.multirun and chosen.cfg == "job":
        return ["-m", *(a for a in rest if not _LAUNCHER.match(a)), "hydra/launcher=show"]
    return quoted


def require_keys(overrides: Sequence[str]) -> None:
    """Raise UserError for an override without a key, such as `=3`."""
    for override in overrides:
        if re.match(r"[+~]*(=|$)", override):
            raise UserError(f"config error at '{override}': has no key; write KEY=VALUE")


def quote_paths(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the paths quoted that Hydra's grammar would not accept as text.

    A leading `~` of these is the home directory, as in a shell.
    """
    return [_quoted(argument) for argument in arguments]


def _quoted(argument: str) -> str:
    key, _, value = argument.partition("=")
    if key not in PATHS or not _REFUSED.search(value) or re.match(r"['\"\[{$]", value):
        return argument
    if not value.isprintable() or (key == "hydra.run.dir" and "\\" in value):  # escaped by hand
        return argument
    path = str(Path(value).expanduser()) if value.startswith("~/") else value
    return f"{key}={in_quotes(path)}"


def in_quotes(text: str) -> str:
    """Return a text as Hydra's grammar reads it unchanged."""
    escaped = re.sub(r"(\\*)(')", lambda m: 2 * m[1] + "\\'", text)
    return f"'{escaped}'"


def number(kind: type[Number]) -> Callable[[str], Number]:
    """Return a parser of positive numbers; whole ones may be written as 1e6."""

    def parse(text: str) -> Number:
        value = float(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be positive, got {text}")
        if kind is int and value != int(value):
            raise argparse.ArgumentTypeError(f"must be a whole number, got {text}")
        return kind(value)

    parse.__name__ = "number"
    return parse


def png_file(text: str) -> Path:
    """Return the path of a picture that an option names."""
    if Path(text).suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"the name must end in .png, got '{text}'")
    return Path(text)
