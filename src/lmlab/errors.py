"""Errors that are the user's to mend: shown as one line, exit code 1, never a traceback."""

import errno

_MENDABLE = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG),
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
)
"""Errors of the file system that are the user's to mend."""


class UserError(Exception):
    """Something the user can put right; one line that names what, where and what to do."""


class ConfigError(UserError):
    """A configuration that cannot be meant; names the key, the value and what is allowed."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(
            f"config error at '{path}': {problem}" if path else f"config error: {problem}"
        )


class DataError(UserError):
    """Text, a tokenizer file or prepared data that cannot be used; the message names the file."""


def explain_os_error(error: OSError) -> str | None:
    """Return one line for a mistake with the file system; None for what is no mistake of a user."""
    if error.errno not in _MENDABLE:
        return None
    where = error.filename2 or error.filename  # of a renaming the place that it was for
    return f"{error.strerror}: {where}" if where else error.strerror
