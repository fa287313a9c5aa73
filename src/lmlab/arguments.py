"""Arguments of command lines: numbers, and what Hydra accepts in another form only."""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

Number = TypeVar("Number", int, float)
PATHS = ("resume", "init_from")
"""Keys whose value is one path; those of a sweep's runs hold `=` and `,`."""
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


def quote_paths(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the paths quoted that Hydra's grammar would not accept as text."""
    return [_quoted(argument) for argument in arguments]


def _quoted(argument: str) -> str:
    key, _, value = argument.partition("=")
    if key not in PATHS or not re.search(r"[=,]", value) or re.match(r"['\"\[{$]", value):
        return argument
    escaped = re.sub(r"(\\*)(')", lambda m: 2 * m[1] + "\\'", value)
    return f"{key}='{escaped}'"


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
