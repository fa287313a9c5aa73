"""Command lines that Hydra does not accept as they are, rewritten into ones that it does."""

import argparse
import re
from collections.abc import Sequence

from lmlab.errors import UserError

PATHS = ("resume", "init_from")
"""Keys whose value is one path; those of a sweep's runs hold `=` and `,`."""
_LAUNCHER = re.compile(r"\+*hydra[./]launcher\b")


def for_hydra(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with quoted paths, and `-m --cfg job` as a sweep that prints its jobs.

    Raises UserError for two of Hydra's commands at once.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for options in (("--multirun", "-m"), ("--run", "-r")):
        parser.add_argument(*options, action="store_true")
    parser.add_argument("--cfg", "-c")
    parser.add_argument("--info", "-i", nargs="?", const="all")
    quoted = quote_paths(arguments)
    try:
        chosen, rest = parser.parse_known_args(quoted)
    except argparse.ArgumentError:  # Hydra's message is better
        return quoted
    commands = [f"--{name}" for name, value in vars(chosen).items() if value]
    if len(commands) < 2:
        return quoted
    if commands == ["--multirun", "--cfg"] and chosen.cfg == "job":
        return ["-m", *(a for a in rest if not _LAUNCHER.match(a)), "hydra/launcher=show"]
    if "--multirun" in commands and chosen.cfg in ("hydra", "all"):
        raise UserError(f"--cfg {chosen.cfg} shows one run: leave out -m, or use -m --cfg job")
    raise UserError(f"only one of {' and '.join(commands)} can be used at a time")


def quote_paths(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the paths quoted that Hydra's grammar would not accept as text."""
    return [_quoted(argument) for argument in arguments]


def _quoted(argument: str) -> str:
    key, _, value = argument.partition("=")
    if key not in PATHS or not re.search(r"[=,]", value) or re.match(r"['\"\[{$]", value):
        return argument
    escaped = re.sub(r"(\\*)(')", lambda m: 2 * m[1] + "\\'", value)
    return f"{key}='{escaped}'"
