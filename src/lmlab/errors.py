"""Errors that are the user's to mend: shown as one line, exit code 1, never a traceback."""


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
