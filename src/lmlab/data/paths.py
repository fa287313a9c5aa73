"""The files that paths, folders and patterns name."""

import os
import re
import stat
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from lmlab.errors import ConfigError, DataError

_CACHED = re.compile(r"tokenizers|downloads|\w+-[0-9a-f]{16}")


@dataclass(frozen=True)
class Files:
    """Files in sorted order."""

    paths: tuple[Path, ...]
    from_folders: frozenset[Path] = field(default_factory=frozenset)
    """Those found by reading a folder: they may be anything, also images."""

    def without(self, others: "Files") -> "Files":
        """Return these files without `others`."""
        left_out = set(others.paths)
        kept = tuple(path for path in self.paths if path not in left_out)
        return Files(kept, self.from_folders)


def find_files(key: str, patterns: Sequence[str], cache: Path) -> Files:
    """Return the files that `patterns`, the value of the configuration key `key`, name.

    A path that exists is itself, also with brackets in its name; a folder stands for all regular
    files below it. Everything else is a pattern, whose leading part is taken literally as far as it
    exists. What lmlab keeps in `cache` is left out. Raises DataError where nothing is found.
    """
    named: set[Path] = set()
    found: set[Path] = set()
    for pattern in patterns:
        if not pattern.strip():
            raise ConfigError(key, f"{pattern!r} names nothing; give a file, folder or pattern")
        try:
            path = Path(pattern).expanduser()
            base, rest = _existing(path)
            if rest:
                files = {_real(match) for match in _matches(base, rest)}
                named |= files
            elif base.is_dir():
                files = {_real(file) for file in _below(base, cache)}
                found |= files
            else:
                _check_regular(base)
                files = {_real(base)}
                named |= files
        except OSError as error:
            where = f"{error.filename}: " if error.filename not in (None, str(path)) else ""
            raise DataError(
                f"{key}: {pattern!r} cannot be read: {where}{error.strerror or error}"
            ) from None
        except (RuntimeError, ValueError, NotImplementedError) as error:
            # a pipe, no home directory, a NUL, or `**` as a part of a name
            raise DataError(f"{key}: {pattern!r} cannot be read: {error}") from None
        if not files:
            where = f"holds no file: {base}" if not rest else f"matches no file in {Path.cwd()}"
            raise DataError(f"{key}: {pattern!r} {where}")
    return Files(tuple(sorted(named | found)), frozenset(found - named))


def cleaned_files(directory: str) -> Files:
    """Return the shards that a finished cleaning run wrote; raises ConfigError without one."""
    path = Path(directory).expanduser()
    if not (path / "manifest.json").is_file():
        problem = (
            "has not finished; start clean.py again"
            if (path / "job.json").is_file()
            else "is not the output of clean.py: it has no manifest.json"
        )
        raise ConfigError("data.path", f"{directory!r} {problem}")
    shards = sorted((path / "shards").iterdir())
    return Files(tuple(shard for shard in shards if not shard.name.startswith(".")))


def standard_library() -> Files:
    """Return the source files of Python's standard library, without installed packages."""
    root = Path(sysconfig.get_path("stdlib"))
    files: list[Path] = []
    for folder, folders, names in os.walk(root):
        # In Debian's Python, dist-packages holds the installed packages.
        folders[:] = [name for name in folders if name not in ("site-packages", "dist-packages")]
        files += [Path(folder, name) for name in names if name.endswith(".py")]
    if not files:
        raise DataError(
            f"{root}: this Python has no standard library source; use data=text instead"
        )
    return Files(tuple(sorted(files)), frozenset(files))


def _existing(path: Path) -> tuple[Path, tuple[str, ...]]:
    """Split a path into its longest part that exists, also as a broken link, and the rest."""
    for count in range(len(path.parts), 0, -1):
        base = Path(*path.parts[:count])
        if os.path.lexists(base):
            return base, path.parts[count:]
    return Path(), path.parts


def _matches(base: Path, parts: Sequence[str]) -> Iterator[Path]:
    for match in base.glob("/".join(parts)):
        hidden = [part for part in match.relative_to(base).parts if part.startswith(".")]
        wanted = [part for part in parts if part.startswith(".")]
        if all(any(fnmatch(part, pattern) for pattern in wanted) for part in hidden):
            if match.is_symlink():
                match.stat()  # names a broken link instead of leaving it out
            if match.is_file():
                yield match


def _below(folder: Path, cache: Path) -> Iterator[Path]:
    """Yield the regular files below a folder that are not hidden."""

    def fail(error: OSError) -> None:
        raise error

    cache = cache.resolve()
    for where, folders, names in os.walk(folder, onerror=fail):
        own = Path(where).resolve() == cache
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and not (own and _CACHED.fullmatch(name))
        ]
        paths = (Path(where, name) for name in names if not name.startswith("."))
        yield from (path for path in paths if path.is_file())


def _check_regular(path: Path) -> None:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        what = "a named pipe" if stat.S_ISFIFO(mode) else "a device or socket"
        raise ValueError(f"it is {what}, but the text is read several times; write it to a file")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
