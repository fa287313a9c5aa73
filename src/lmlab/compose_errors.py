"""Explanations of errors of Hydra and OmegaConf: one line in the user's terms."""

import re

import yaml
from hydra.errors import MissingConfigException, OverrideParseException

from lmlab.config import RunConfig
from lmlab.config_errors import not_one_of, unknown_key
from lmlab.errors import ConfigError, UserError
from lmlab.schema import keys_at


def explain_composition_error(error: Exception) -> str:
    """Return one line for an error of the user, of Hydra, of OmegaConf or of a YAML file."""
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
        if key in keys_at(RunConfig, parents) and "is not in struct" not in str(cause):
            return f"config error at '{path}': {str(cause or error).splitlines()[0]}"
        return str(ConfigError(path, unknown_key(path.split("."), RunConfig)))
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"config error: {mark.name}, line {mark.line + 1}: {error.problem}"
    return "config error: " + " ".join(line.strip() for line in text.splitlines() if line.strip())


def _explain_missing(error: MissingConfigException) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    options = [option for option in error.options or [] if option != choice]
    if not group or not options:
        return f"config error: {str(error).splitlines()[0]}"
    return str(ConfigError(group, not_one_of(choice, options)))
