"""Directories that are complete or absent: built once, checked when opened, rebuilt if damaged."""

import contextlib
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lmlab.data.download import STORAGE
from lmlab.files import fsync_directory
from lmlab.io.locks import locked, storage_errors
from lmlab.io.progress import say

META = "meta.json"
_SAMPLES, _SAMPLE = 64, 1 << 16


@dataclass(frozen=True)
class Entry:
    """A directory of the cache, as opened."""

    directory: Path
    meta: dict[str, Any]
    reused: bool
    """It existed before."""


def get_or_build(root: Path, name: str, build: Callable[[Path], dict[str, Any]]) -> Entry:
    """Return the directory `root`/`name`, built by `build` when it is missing or damaged.

    `build` fills the empty directory it is given and returns the content of meta.json. The final
    name appears when everything is complete. When several processes ask at once, one builds and
    the others wait. Raises DataError when the disk is full or cannot be written.
    """
    directory = root / name
    if (meta := _meta(directory)) is not None:
        return Entry(directory, meta, reused=True)
    with storage_errors(root, "preparing data", STORAGE):
        root.mkdir(parents=True, exist_ok=True)
        with locked(_lock_path(root, name), f"preparing {directory}"):
            if (meta := _meta(directory, tell=True)) is not None:
                return Entry(directory, meta, reused=True)
            _remove_leftovers(root, name)
            temporary, damaged = _temporary(root, name), _temporary(root, name)
            try:
                temporary.mkdir()
                _seal(temporary, build(temporary))
                if directory.exists():  # a directory cannot be replaced in one step
                    directory.replace(damaged)
                temporary.replace(directory)
                fsync_directory(root)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
                shutil.rmtree(damaged, ignore_errors=True)
            return Entry(directory, json.loads((directory / META).read_text()), reused=False)


def _meta(directory: Path, tell: bool = False) -> dict[str, Any] | None:
    """Return the meta of an intact directory, None for a missing or damaged one."""
    if not directory.exists():
        return None
    try:
        meta = json.loads((directory / META).read_bytes())
        for name, (size, checksum) in meta["files"].items():
            if (found := (directory / name).stat().st_size) != size:
                raise ValueError(f"{name} has {found:,} bytes instead of {size:,}")
            if _checksum(directory / name) != checksum:
                raise ValueError(f"{name} has changed")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if tell:
            reason = error.strerror if isinstance(error, OSError) else error
            say(f"{directory} is damaged ({reason}); building it again")
        return None
    assert isinstance(meta, dict)
    return meta


def _seal(directory: Path, meta: dict[str, Any]) -> None:
    """Write meta.json, which marks the directory as complete, and flush everything to the disk."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    files = {
        path.relative_to(directory).as_posix(): [path.stat().st_size, _checksum(path)]
        for path in paths
    }
    (directory / META).write_text(json.dumps({**meta, "files": files}, indent=2) + "\n")
    for path in [*paths, directory / META]:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    for path in [directory, *(path for path in directory.rglob("*") if path.is_dir())]:
        fsync_directory(path)


def _checksum(path: Path) -> int:
    """Return the CRC-32 of a small file, or of samples of a large one, so that a start is quick."""
    size = path.stat().st_size
    checksum = 0
    with path.open("rb") as file:
        for index in range(_SAMPLES):
            if size > _SAMPLES * _SAMPLE:
                file.seek(index * (size - _SAMPLE) // (_SAMPLES - 1))
            checksum = zlib.crc32(file.read(_SAMPLE), checksum)
    return checksum


def _lock_path(root: Path, name: str) -> Path:
    (root / ".locks").mkdir(exist_ok=True)
    return root / ".locks" / f"{name}.lock"


def _temporary(root: Path, name: str) -> Path:
    return root / f".{name}.{secrets.token_hex(6)}.tmp"


def _remove_leftovers(root: Path, mine: str) -> None:
    """Remove the temporary directories of killed processes: those whose lock is free."""
    for path in root.glob(".*.*.tmp"):
        name = path.name.removeprefix(".").rsplit(".", 2)[0]
        if name == mine:  # this process holds that lock
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(Timeout), FileLock(_lock_path(root, name), timeout=0):
                shutil.rmtree(path, ignore_errors=True)
