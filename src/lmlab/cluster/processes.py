"""Processes of this machine, distinguished from later ones with the same number."""

import os
import socket
from typing import Any

import psutil

_SAME = 2.0
"""Seconds by which two readings of one start time may differ when the clock is adjusted."""


def this_process() -> dict[str, Any]:
    """Return what a record needs for `is_alive` to recognise this process."""
    pid = os.getpid()
    return {"pid": pid, "host": socket.gethostname(), "start_time": start_time(pid)}


def is_here(host: object) -> bool:
    """Return whether a record was written on this machine; without a host it was."""
    return host in (None, socket.gethostname())


def is_alive(pid: object, host: object, since: object = None) -> bool:
    """Return whether the process that started at `since` runs; assumed on another machine."""
    if not is_here(host):
        return True
    process = _process(pid)
    if process is None:
        return False
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return not isinstance(since, float) or abs(process.create_time() - since) < _SAME
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def start_time(pid: object) -> float | None:
    """Return when a process started, in seconds since 1970; None when it is unknown."""
    process = _process(pid)
    try:
        return process.create_time() if process is not None else None
    except psutil.Error:
        return None


def _process(pid: object) -> psutil.Process | None:
    try:
        return psutil.Process(int(str(pid)))
    except (ValueError, OverflowError, psutil.Error):
        return None
