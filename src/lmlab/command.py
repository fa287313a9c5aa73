"""Shared by all commands: a user's mistake is one line on stderr and exit code 1."""

import os
import sys
from collections.abc import Callable

from lmlab.errors import UserError, explain_os_error


def exit_code(
    command: Callable[[], None],
    prefix: str = "",
    explain: Callable[[Exception], str | None] = lambda error: None,
) -> int:
    """Run a command and return its exit code: 0, 1 after a user's mistake, 130 after Ctrl-C.

    `explain` returns the line for an error of a library that is a user's mistake, None for a fault
    of this code, which is raised.
    """
    try:
        command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"{prefix}interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        text = _one_line(error, explain)
        if text is None:
            raise
        print(f"{prefix}{printable(text)}", file=sys.stderr)
        return 1
    return 0


def _one_line(error: Exception, explain: Callable[[Exception], str | None]) -> str | None:
    if isinstance(error, UserError):
        return str(error)
    text = explain(error)  # first: Hydra's missing file is an OSError as well
    return explain_os_error(error) if text is None and isinstance(error, OSError) else text


def printable(text: str) -> str:
    """Return a text as one line that a terminal can show: control characters are escaped."""
    line = " ".join(text.splitlines())
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return shown.encode("utf-8", "backslashreplace").decode()
