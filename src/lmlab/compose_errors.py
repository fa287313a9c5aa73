"""Explanations of errors of Hydra and OmegaConf: one line in the user's terms."""

import re
from collections.abc import Sequence

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel

from lmlab.arguments import in_quotes, quote_paths
from lmlab.config import RunConfig
from lmlab.config_errors import did_you_mean, not_one_of, unknown_key
from lmlab.errors import ConfigError, UserError
from lmlab.help import group_choices
from lmlab.locations import FOLDERS, find_conf, roots
from lmlab.schema import keys_at


def explain_composition_error(
    error: Exception, root: type[BaseModel] = RunConfig, overrides: Sequence[str] = ()
) -> str:
    """Return one line for an error of the user, of Hydra, of OmegaConf or of a YAML file.

    `root` is the class of the whole configuration, `overrides` are what was composed.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingConfigException):
        return _explain_missing(error)
    if isinstance(error, OverrideParseException):
        problem = str(error).splitlines()[0].rstrip(".")
        return (
            f"config error at '{error.override}': cannot be read as an override ({problem})"
            + _quoting(str(error.override))
        )
    text = str(error)
    cause = error.__cause__
    if match := re.match(r"Could not override '([^']+)'\.(?: No match)?", text):
        path = match[1].split("@")[0].replace("/", ".").lstrip(".")
        *parents, key = path.split(".")
        if key in keys_at(root, parents) and "is not in struct" not in str(cause):
            return f"config error at '{path}': {str(cause or error).splitlines()[0]}"
        missing = re.match("Key '([^']+)' is not in struct", str(cause))
        if missing and missing[1] not in (*parents, key) and key in keys_at(root, parents):
            entry = f"{path}.{missing[1]}"
            if not keys_at(root, [*parents, key]):
                problem = f"to add entries put a + before it, as in +{entry}=VALUE"
                return str(ConfigError(path, problem))
            if parents:
                return str(ConfigError(entry, unknown_key(entry.split("."), root)))
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
    if "override must be a string or a list. Got" in text:
        problem = "a group; give it one of its choices, not null or a number"
        return str(ConfigError(_group_without_choice(overrides), problem))
    return f"config error: {' '.join(lines)}"


def _quoting(override: str) -> str:
    """Return how to quote the texts of an override that is refused without; nothing otherwise."""
    key, _, value = override.partition("=")
    if value.startswith("[") and value.endswith("]"):
        value = f"[{','.join(in_quotes(item.strip()) for item in value[1:-1].split(','))}]"
    elif re.match(r"[\w/.~]", value):
        value = in_quotes(value)
    quoted = f"{key}={value}"
    if quoted == override or re.search(r'["$`!\\]', quoted):  # a shell changes these
        return ""
    try:
        OverridesParser.create().parse_override(quoted)
    except HydraException:
        return ""
    return f'; put text in quotes: "{quoted}"'


def _group_without_choice(overrides: Sequence[str]) -> str:
    """Return the first group that is given a value that is no choice, such as null or a number."""
    groups = group_choices(roots(find_conf()))
    values = [o for o in quote_paths(overrides) if "=" in o and not o.startswith("-")]
    for override in OverridesParser.create().parse_overrides(values):
        key, value = override.key_or_group, override.value()
        found = value.list if isinstance(value, ChoiceSweep) else [value]
        if key in groups and any(v is None or isinstance(v, int | float | dict) for v in found):
            return key.replace("/", ".")
    return ""


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
