"""Sampling options as text: flags of a command line, and `/set` of the interactive mode."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from lmlab.errors import UserError
from lmlab.generation.options import Options


class Setting(NamedTuple):
    """How one field of Options is written."""

    parse: Callable[[str], Any]
    metavar: str
    help: str


def _whole(text: str) -> int:
    return _parsed(int, text, "a whole number")


def _whole_or_none(text: str) -> int | None:
    return None if text.lower() == "none" else _whole(text)


def _number(text: str) -> float:
    return _parsed(float, text, "a number")


def _parsed(kind: type, text: str, what: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}") from None


SETTINGS = {
    "max_new_tokens": Setting(_whole, "N", "generate at most N tokens"),
    "min_new_tokens": Setting(_whole, "N", "do not end the text before N tokens"),
    "temperature": Setting(_number, "T", "divide the logits by T; 0 takes the likeliest token"),
    "top_k": Setting(_whole_or_none, "K", "sample from the K likeliest tokens"),
    "top_p": Setting(
        _number, "P", "sample from the smallest set of likeliest tokens whose probability reaches P"
    ),
    "min_p": Setting(
        _number, "P", "sample from tokens with at least P times the largest probability"
    ),
    "repetition_penalty": Setting(
        _number, "R", "make tokens that are in the text less likely; 1 is off"
    ),
    "seed": Setting(_whole, "N", "seed of the draws; sample i of a prompt has the seed N + i"),
    "stop": Setting(str, "TEXT", "end before this text; may be given many times"),
}
"""Field of Options -> how it is written."""


def add_flags(parser: argparse._ActionsContainer) -> None:
    """Add a flag for each setting; one that is not given is None."""
    for name, setting in SETTINGS.items():
        default = getattr(Options, name)
        shown = f" (default: {default})" if default not in (None, ()) else ""
        parser.add_argument(
            _flag(name),
            type=setting.parse,
            action="append" if name == "stop" else "store",
            metavar=setting.metavar,
            help=setting.help + shown,
        )


def from_flags(parsed: argparse.Namespace) -> Options:
    """Return the options that a command line gives; a UserError names the flag."""
    given = {name: getattr(parsed, name) for name in SETTINGS}
    options = Options()
    for name, value in given.items():
        if value is not None:
            options = _changed(options, name, value, shown=_flag(name))
    return options


def with_setting(options: Options, name: str, text: str) -> Options:
    """Return options with one value given as text; `none` is the default.

    Names may have dashes; a stop string's `\\n` is a newline. Raises UserError.
    """
    name = name.removeprefix("--").replace("-", "_")
    if name not in SETTINGS:
        raise UserError(f"unknown setting {name!r}; there is {', '.join(SETTINGS)}")
    if text.lower() == "none":
        return replace(options, **{name: getattr(Options, name)})
    try:
        value = SETTINGS[name].parse(text)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{name} {error}") from None
    if name == "stop":
        value = (value.replace("\\n", "\n").replace("\\t", "\t"),)
    return _changed(options, name, value, shown=name)


def _changed(options: Options, name: str, value: object, shown: str) -> Options:
    try:
        return replace(options, **{name: value})  # type: ignore[arg-type]
    except UserError as error:
        raise UserError(str(error).replace(name, shown, 1)) from None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
