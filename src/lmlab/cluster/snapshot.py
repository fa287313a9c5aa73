"""Pinning the code: a job that waits a day must not run what was edited meanwhile."""

import hashlib
import importlib.util
import json
import shutil
import tempfile
from pathlib import Path

import lmlab
from lmlab.runs.environment import REVISION, revision

_PACKAGE = Path(lmlab.__file__).parent


def digest() -> str:
    """Return a hash of all code of this package, compiled code included."""
    hashed = hashlib.sha256()
    for name, path in sorted(_files().items()):
        hashed.update(f"{name}\0{path.stat().st_size}\0".encode())
        hashed.update(path.read_bytes())
    return hashed.hexdigest()[:16]


def take(folder: Path) -> Path:
    """Copy the package into `folder`, once for each state of it, and return what goes on sys.path.

    The copy records the git commit, and whether there were changes to it.
    """
    target = folder / digest()
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".", dir=folder))
    try:
        for name, path in _files().items():
            copy = temporary / "lmlab" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        (temporary / "lmlab" / REVISION).write_text(json.dumps(revision()), encoding="utf-8")
        temporary.chmod(0o755)
        temporary.rename(target)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        if not target.exists():  # somebody else was faster
            raise
    return target


def _files() -> dict[str, Path]:
    """Return the files of the package by their names in it."""
    files = {
        str(path.relative_to(_PACKAGE)): path
        for path in _PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != REVISION
    }
    for package in (path.parent.name for path in _PACKAGE.glob("*/native.py")):
        core = importlib.util.find_spec(f"lmlab.{package}._core")
        if core is not None and core.origin:  # an editable install keeps it elsewhere
            files[str(Path(package, Path(core.origin).name))] = Path(core.origin)
    return files
