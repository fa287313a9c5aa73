"""Configurations of earlier versions, brought to the keys of today's."""

import copy
from collections.abc import Callable
from typing import Any

from lmlab.errors import UserError

Values = dict[str, Any]


def _from_version_0(stored: Values) -> Values:
    values: Values = {"init_from": None, "init_optimizer": False, **copy.deepcopy(stored)}
    values["trainer"] = {"check_memory": True} | values["trainer"]
    attention = values["model"]["attention"]
    for member in (attention, *attention.get("members", {}).values()):
        if member.get("backend") == "written_out":
            member["backend"] = "eager"
    data = values["data"]
    if isinstance(separator := data.get("separator"), str):
        # It was stored decoded; a backslash in it now begins an escape.
        data["separator"] = separator.replace("\\", "\\\\")
    if data["kind"] == "text":
        values["data"] = {"format": None} | data
    return values


def _from_version_1(stored: Values) -> Values:
    values = copy.deepcopy(stored)
    values["trainer"].setdefault("kernels", "auto")
    position = values["model"]["position"]
    if position["kind"] == "rope":
        position.setdefault("scaling", {"kind": "none"})
    return values


def _from_version_2(stored: Values) -> Values:
    values = {"parallel": {"kind": "ddp"}, **copy.deepcopy(stored)}
    values["model"] = {"parametrization": "standard", "base_width": None} | values["model"]
    return values


MIGRATIONS: list[Callable[[Values], Values]] = [_from_version_0, _from_version_1, _from_version_2]
"""What brings version i to version i + 1; append to it whenever a key is added or renamed."""
SCHEMA_VERSION = len(MIGRATIONS)


def migrated(values: Values) -> Values:
    """Return the values of a stored configuration under today's keys, `schema_version` removed.

    Raises UserError when a later version wrote it.
    """
    values = dict(values)
    version = values.pop("schema_version", 0)
    if not isinstance(version, int) or not 0 <= version <= SCHEMA_VERSION:
        raise UserError(
            f"a configuration of schema version {version!r}; this version of lmlab reads those up "
            f"to {SCHEMA_VERSION}: use a newer one"
        )
    for migrate in MIGRATIONS[version:]:
        try:
            values = migrate(values)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"not a configuration of a run: it lacks {error}") from error
    return values
