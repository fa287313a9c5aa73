"""Local copies of a corpus on the web."""

import contextlib
import re
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lmlab.data.config import RemoteFile
from lmlab.files import atomic_write
from lmlab.io.download import Remote, download
from lmlab.io.locks import locked, storage_errors
from lmlab.io.progress import say

STORAGE = "data.cache_dir (or $LMLAB_DATA)"


def download_all(
    files: Mapping[str, RemoteFile], directory: Path, *, license: str, progress: bool
) -> list[Path]:
    """Return local copies of `files` (configuration key -> file), downloading what is missing.

    The license is printed once, before the first download. Raises DataError when a file is not
    available or is not what its name says.
    """
    with storage_errors(directory, "downloading", STORAGE):
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory / ".lock", f"downloading to {directory}"):
            notice = directory / "LICENSE.txt"
            if not notice.exists():
                say(license)
                with atomic_write(notice) as out:
                    out.write(license + "\n")
            targets = []
            for key, file in files.items():
                target = directory / local_name(file.url)
                remote = Remote(file.url, file.sha256, f"{key}.url", f"{key}.sha256")
                download(remote, target, progress=progress)
                targets.append(target)
            return targets


def local_name(url: str) -> str:
    """Return the name of the local copy of `url`: a hash of the whole URL, then its last part."""
    name = Path(unquote(urlsplit(url).path)).name or "download"
    digest = blake2b(url.encode(errors="replace"), digest_size=6).hexdigest()
    return f"{digest}-{re.sub(r'[^A-Za-z0-9._+-]', '_', name)[-100:]}"


def quarantine(path: Path) -> Path:
    """Move a damaged download to `.damaged`, so that the next start downloads it again."""
    damaged = path.with_name(f"{path.name}.damaged")
    with contextlib.suppress(FileNotFoundError):
        path.replace(damaged)
    return damaged
