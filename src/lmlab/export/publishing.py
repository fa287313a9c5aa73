"""Publishing a folder or a file: whole, or not at all."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lmlab.errors import UserError
from lmlab.files import fsync_directory


def check_target(target: Path, force: bool) -> None:
    """Raise UserError when the target exists and must not be replaced."""
    if target.is_symlink() or target.exists():
        if not force:
            raise UserError(f"{target} exists; give another place, or replace it with --force")
        if target.resolve() in (Path.cwd(), *Path.cwd().parents):
            raise UserError(f"{target} holds the working directory; give another place")


@contextlib.contextmanager
def published(target: Path, force: bool) -> Iterator[Path]:
    """Yield a new folder beside the target, renamed onto it when the block succeeds.

    A block that raises leaves the target as it was, and nothing beside it. With `force` an existing
    target is replaced; else it is a UserError.
    """
    check_target(target, force)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        content = scratch / "content"
        content.mkdir()
        yield content
        check_target(target, force)
        if target.is_symlink() or target.exists():
            target.rename(scratch / "replaced")
        content.rename(target)
        fsync_directory(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
