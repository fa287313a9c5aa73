"""Configurations of earlier versions, brought to the keys of today's."""

from collections.abc import Callable
from typing import Any

from lmlab.errors import UserError

Values = dict[str, Any]


def _runs_may_have_parents(values: Values) -> Values:
    return {"init_from": None, "init_optimizer": False} | values


MIGRATIONS: list[Callable[[Values], Values]] = [_runs_may_have_parents]
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
        values = migrate(values)
    return values
