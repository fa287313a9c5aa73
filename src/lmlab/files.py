"""Publishing files atomically: a reader sees the old content or the new, nothing between."""

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_TEMPORARY = ".tmp"


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w", *, durable: bool = True) -> Iterator[IO[Any]]:
    """Write to a temporary file beside `path`, renamed onto it when the block succeeds.

    When the block raises, the temporary file is removed and `path` stays as it was. What need not
    outlive a power cut is written a good deal faster with `durable=False`. A link stays one; a
    device or a pipe has no content to keep and is written as it is. The temporary file is locked,
    so that `remove_abandoned` knows those of killed processes.
    """
    path = Path(os.path.realpath(path))
    if is_device_or_pipe(path):
        with path.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = _temporary(path)
    lock = os.dup(descriptor)  # until the file, which is closed first, has its name
    try:
        with os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        share(temporary)
        temporary.replace(path)
        if durable:
            fsync_directory(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(lock)


def _temporary(path: Path) -> tuple[int, Path]:
    """Open and lock a new file beside `path`; an OSError names `path`, not the new file."""
    while True:
        try:
            descriptor, name = tempfile.mkstemp(
                prefix=f".{path.name}.", suffix=_TEMPORARY, dir=path.parent
            )
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, Path(name)
        os.close(descriptor)  # taken for abandoned before it was locked


def remove_abandoned(directory: Path) -> None:
    """Remove the temporary files of killed processes in a directory, not those being written.

    On a file system without locks they all stay.
    """
    for path in directory.glob(f".*{_TEMPORARY}"):
        with contextlib.suppress(OSError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def require_writable(path: Path) -> None:
    """Raise OSError unless `atomic_write` can write `path`: before work whose result it gets."""
    path = Path(os.path.realpath(path))
    if is_device_or_pipe(path):
        return
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = _temporary(path)
    os.close(descriptor)
    temporary.unlink()


def is_plain_file(path: Path) -> bool:
    """Whether `path` is a regular file; False also when it cannot be read."""
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def is_device_or_pipe(path: Path) -> bool:
    """Whether `path` exists and is neither a file nor a directory."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def remove_if_empty(directory: Path) -> None:
    """Remove a directory, and its parent, when nothing is in them; never the working directory."""
    with contextlib.suppress(OSError):
        for path in (directory, directory.parent):
            if Path.cwd().is_relative_to(path.resolve()):
                return
            path.rmdir()


def fsync_directory(path: Path) -> None:
    """Make renames inside `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def share(path: Path) -> None:
    """Give a file the permissions of a new file; temporary ones are private."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)
