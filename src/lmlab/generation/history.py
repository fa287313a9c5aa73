"""Line editing with a history that outlives the session."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LINES = 1000
"""Lines that the history keeps."""


def history_file() -> Path:
    """Return `$XDG_STATE_HOME/lmlab/generate_history`; without it `~/.local/state` is taken."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state, "lmlab", "generate_history")


@contextmanager
def line_editing() -> Iterator[None]:
    """Give `input()` line editing inside the block, and the history of earlier sessions.

    What is entered is appended to the history file. Where it cannot be read or written, or Python
    has no readline, input works without.
    """
    try:
        import readline
    except ImportError:  # Windows
        yield
        return
    readline.parse_and_bind("set enable-bracketed-paste on")  # a paste of several lines is one text
    readline.clear_history()
    readline.set_history_length(LINES)
    with suppress(OSError, RuntimeError):  # RuntimeError: there is no home directory
        readline.read_history_file(history_file())
    before = readline.get_current_history_length()
    try:
        yield
    finally:
        with suppress(OSError, RuntimeError):
            _save(readline.get_current_history_length() - before)


def _save(new_lines: int) -> None:
    import readline

    path = history_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    if hasattr(readline, "append_history_file"):  # what other sessions wrote stays
        readline.append_history_file(new_lines, path)
    else:  # libedit
        readline.write_history_file(path)
