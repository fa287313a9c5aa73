"""The manifest of a sharded checkpoint: size and checksum of each of its files."""

import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lmlab.files import fsync_directory

MANIFEST = "manifest.json"
Record = dict[str, int | str]
"""Size in `bytes` and `crc32` of a file."""


def records(files: Iterable[Path]) -> dict[str, Record]:
    """Return the record of each file, by name."""
    return {
        path.name: {"bytes": path.stat().st_size, "crc32": f"{_crc32(path):08x}"} for path in files
    }


def write_manifest(folder: Path, files: dict[str, Record], processes: int) -> None:
    """Write the manifest of a folder durably; `processes` is how many wrote the files."""
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump({"processes": processes, "files": files}, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    fsync_directory(folder)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder: `processes` and `files`; raises ValueError without one."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(f"{MANIFEST} is missing")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def verify(folder: Path, part: int = 0, parts: int = 1) -> None:
    """Raise ValueError unless the files are those of the manifest; takes each `parts`-th file.

    Missing files and wrong sizes are found in all files.
    """
    files: dict[str, Record] = read_manifest(folder)["files"]
    for name, record in files.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{name} is missing")
        if (size := path.stat().st_size) != record["bytes"]:
            raise ValueError(f"{name} has {size:,} bytes instead of {record['bytes']:,}")
    for name in sorted(files)[part::parts]:
        if f"{_crc32(folder / name):08x}" != files[name]["crc32"]:
            raise ValueError(f"the checksum of {name} is wrong")


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return checksum
