"""Downloading a small file once."""

import hashlib
from pathlib import Path

import requests
from tqdm import tqdm

from lmlab.errors import DataError
from lmlab.files import atomic_write

_TIMEOUT = 30  # seconds without a byte


def digest(path: Path, url: str | None, sha256: str | None, *, progress: bool = False) -> str:
    """The sha256 that `path` has, or will have when `fetch` has downloaded it."""
    if sha256 is not None and not _exists(path):
        return sha256
    fetch(path, url, None, progress=progress)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def fetch(path: Path, url: str | None, sha256: str | None, *, progress: bool = False) -> None:
    """Download `url` to `path` unless the file is there already.

    The file appears complete and, when `sha256` is given, with exactly that content, or not at all.
    """
    if _exists(path):
        return
    if url is None:
        raise DataError(f"{path}: no such file, and no URL to download it from")
    digest, received = hashlib.sha256(), 0
    try:
        with requests.get(url, stream=True, timeout=_TIMEOUT) as response:
            response.raise_for_status()
            size = int(response.headers.get("Content-Length", 0)) or None
            if "Content-Encoding" in response.headers:
                size = None  # counts the compressed bytes
            with (
                tqdm(
                    total=size, unit="B", unit_scale=True, desc=path.name, disable=not progress
                ) as bar,
                atomic_write(path, "wb") as file,
            ):
                for chunk in response.iter_content(1 << 16):
                    file.write(chunk)
                    digest.update(chunk)
                    received += len(chunk)
                    bar.update(len(chunk))
                if size is not None and received != size:
                    raise DataError(
                        f"{url}: the connection was cut after {received} of {size} bytes; try again"
                    )
                if sha256 is not None and digest.hexdigest() != sha256:
                    raise DataError(
                        f"{url}: sha256 is {digest.hexdigest()}, not the expected {sha256}"
                    )
    except (requests.RequestException, OSError) as error:
        raise DataError(f"{url}: cannot be downloaded to {path}: {error}") from None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
