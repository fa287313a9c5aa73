"""Which group choices a run takes from the run it builds on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lmlab.derive import group_choices
from lmlab.locations import FOLDERS, roots


def inherited_choices(conf: Path, base: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """Return the group choices of a stored configuration, `data=text`, that overrides leave alone.

    Those of an experiment or a sweep count as overrides. A group below one that gets another choice
    is not inherited either.
    """
    given = {}
    for override in overrides:
        group, _, choice = override.partition("=")
        given[group.lstrip("+~")] = choice
    for group in FOLDERS:
        if group in given:
            given = _of_file(conf, group, given[group]) | given
    choices = dict(choice.split("=", 1) for choice in group_choices(conf, base))
    changed = [
        f"{group}/" for group, choice in choices.items() if given.get(group, choice) != choice
    ]
    return [
        f"{group}={choice}"
        for group, choice in choices.items()
        if group not in given and not group.startswith(tuple(changed))
    ]


def _of_file(conf: Path, group: str, name: str) -> dict[str, str]:
    """Return the choices of groups in the defaults list of an experiment or a sweep."""
    for root in roots(conf):
        path = root / FOLDERS[group] / f"{name}.yaml"
        if path.is_file():
            break
    else:
        return {}  # said when the configuration is composed
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        return {}
    choices: dict[str, str] = {}
    for entry in values.get("defaults", []) if isinstance(values, dict) else []:
        for key, choice in entry.items() if isinstance(entry, dict) else [(str(entry), None)]:
            override, _, other = key.rpartition(" ")
            named = other.lstrip("/")
            if named in FOLDERS and isinstance(choice, str):
                choices |= _of_file(conf, named, choice)
            elif choice is None and named.partition("/")[0] in FOLDERS:  # `- /sweep/NAME`
                folder, _, inner = named.partition("/")
                choices |= _of_file(conf, folder, inner)
            elif override == "override" and isinstance(choice, str):
                choices[named] = choice
    return choices
