"""Processes of this machine, told from later ones that got the same number."""

import os
import socket
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Return what a record needs for `alive` to know this process again."""
    pid = os.getpid()
    return {"pid": pid, "host": socket.gethostname(), "born": born(pid)}


def is_here(host: object) -> bool:
    """Whether a record is of this machine; one that does not say is."""
    return host in (None, socket.gethostname())


def alive(pid: object, host: object, since: object = None) -> bool:
    """Whether a process exists that was born then; one of another machine is taken for alive."""
    if not is_here(host):
        return True
    try:
        os.kill(int(str(pid)), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    state, birth = _stat(pid)
    return state != "Z" and (since is None or birth in (None, since))


def born(pid: object) -> str | None:
    """Return when a process was born, in ticks since the machine was; None where nobody knows."""
    return _stat(pid)[1]


def _stat(pid: object) -> tuple[str | None, str | None]:
    """Return state and birth of a process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None, None
    fields = text.rpartition(")")[2].split()  # before it is the command, which may hold anything
    return fields[0], fields[19]
