"""Vocabulary files, downloaded once."""

import hashlib
from pathlib import Path

from lmlab.errors import DataError
from lmlab.io.download import Remote, download
from lmlab.io.locks import locked, storage_errors


def digest(path: Path, remote: Remote | None, *, progress: bool = False) -> str:
    """Return the sha256 of `path`, which is downloaded when it is missing and its hash unknown."""
    if remote is not None and remote.sha256 is not None and not _exists(path):
        return remote.sha256
    fetch(path, remote, progress=progress)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def fetch(path: Path, remote: Remote | None, *, progress: bool = False) -> None:
    """Download `remote` to `path` unless that file exists.

    The file appears complete and with the expected hash, or not at all. Raises DataError when it is
    missing and cannot be downloaded.
    """
    if _exists(path):
        return
    if remote is None:
        raise DataError(f"{path}: no such file, and no URL to download it from")
    where = f"the file's path (beside {remote.url_key})"
    with storage_errors(path.parent, f"downloading {path.name}", where):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f".{path.name}.lock"), f"downloading {path}"):
            if not _exists(path):
                download(remote, path, progress=progress)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
