"""User-facing errors: shown as one line, exit code 1, never a traceback."""

import errno

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk, the quota or the file system's limit is full."""
NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
_WRONG_PATH = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP),
)


class UserError(Exception):
    """A mistake of the user; one line that names what, where and what to do."""


class ConfigError(UserError):
    """An invalid configuration; names the key, the value and what is allowed."""

    def __init__(self, path: str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(
            f"config error at '{path}': {problem}" if path else f"config error: {problem}"
        )

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[str, str]]:
        return type(self), (self.path, self.problem)  # so that processes can raise it in each other


class NotEnoughMemory(ConfigError):
    """A run that certainly needs more memory than there is."""


class DataError(UserError):
    """Text, a tokenizer file or prepared data that cannot be used; the message names the file."""


def explain_os_error(error: OSError) -> str | None:
    """Return one line for a mistake with the file system; None for other errors."""
    if error.errno not in (*_WRONG_PATH, errno.ENAMETOOLONG, *NO_SPACE, *NO_PERMISSION):
        return None
    where = error.filename2 or error.filename  # of a renaming the place that it was for
    return f"{error.strerror}: {where}" if where else error.strerror
