"""Locks between processes, and errors of the file system in one line."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from lmlab.errors import NO_PERMISSION, NO_SPACE, DataError, UserError
from lmlab.io.progress import say


@contextlib.contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock file `path`; print one line when another process holds it, and wait."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.5)
    except Timeout:
        say(f"another process is {doing}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def held_alone(path: Path, message: str) -> Iterator[None]:
    """Hold the lock file `path`; raise UserError(message) when another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(message) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def storage_errors(where: Path, doing: str, setting: str) -> Iterator[None]:
    """Turn an OSError into a DataError of one line; `setting` names the key that moves `where`."""
    try:
        yield
    except OSError as error:
        advice = f"set {setting} to a directory that can be written"
        if error.errno in NO_SPACE:
            advice = f"free some space, or set {setting} to a larger disk"
        elif error.errno not in NO_PERMISSION:
            advice = f"check {error.filename}" if error.filename else "check the disk"
        raise DataError(f"{where}: {error.strerror or error} while {doing}; {advice}") from error
