"""Explanations of errors of Hydra and OmegaConf: one line in the user's terms."""

import re

import yaml
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel

from lmlab.config import RunConfig
from lmlab.config_errors import did_you_mean, not_one_of, unknown_key
from lmlab.errors import ConfigError, UserError
from lmlab.help import group_choices
from lmlab.locations import FOLDERS, find_conf, roots
from lmlab.schema import keys_at


def explain_composition_error(error: Exception, root: type[BaseModel] = RunConfig) -> str:
    """Return one line for an error of the user, of Hydra, of OmegaConf or of a YAML file.

    `root` is the class of the whole configuration.
    """
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
        if key in keys_at(root, parents) and "is not in struct" not in str(cause):
            return f"config error at '{path}': {str(cause or error).splitlines()[0]}"
        missing = re.match("Key '([^']+)' is not in struct", str(cause))
        if missing and missing[1] in parents and key in keys_at(root, parents):
            place = parents.index(missing[1]) + 1
            names = map(str, getattr(cause, "parent_node", None) or ())
            problem = "unknown key" + did_you_mean(missing[1], names)
            return str(ConfigError(".".join(parents[:place]), problem))
        return str(ConfigError(path, unknown_key(path.split("."), root)))
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"config error: {mark.name}, line {mark.line + 1}: {error.problem}"
    if isinstance(error, OmegaConfBaseException):
        return str(ConfigError(error.full_key or "", text.partition("\n")[0]))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return f"config error: {type(error).__name__}"
    if "must be a string or a list. Got NoneType" in text:
        return "config error: a group cannot be null here; give it one of its choices"
    return f"config error: {' '.join(lines)}"


def _explain_missing(error: MissingConfigException) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    top = group.split("/")[0]
    if top in FOLDERS:  # their choices have folders of their own, `experiment=topic/name`
        group, choice = top, str(error.missing_cfg_file).removeprefix(f"{top}/")
        options = group_choices(roots(find_conf()))[top]
    else:
        options = [option for option in error.options or [] if option != choice]
    if not group or not options:
        return f"config error: {str(error).splitlines()[0]}"
    return str(ConfigError(group, not_one_of(choice, options)))
