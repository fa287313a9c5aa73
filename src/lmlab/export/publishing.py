"""Publishing a folder or a file: whole, or not at all."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lmlab.errors import UserError
from lmlab.files import fsync_directory


def check_target(target: Path, force: bool | None, mark: str | None = None) -> None:
    """Raise UserError when the target exists and must not be replaced.

    With `force` a file is replaced by a file, and a folder by a folder if it is empty or has the
    file `mark`, by which it is known to hold nothing else. None: the command has no `--force`.
    """
    if not (target.is_symlink() or target.exists()):
        return
    if not force:
        or_replace = "" if force is None else ", or replace it with --force"
        raise UserError(f"{target} exists; give another place{or_replace}")
    if mark is None and target.is_dir():
        raise UserError(
            f"{target} is a folder; give the name of a file, such as {target}/model.gguf"
        )
    if mark is not None and not target.is_dir():
        raise UserError(f"{target} is not a folder; give another place")
    if mark is not None and any(target.iterdir()) and not (target / mark).is_file():
        raise UserError(f"{target} has no {mark}, so --force does not replace it; remove it")


@contextlib.contextmanager
def published(target: Path, force: bool | None, mark: str | None = None) -> Iterator[Path]:
    """Yield a path beside the target to write to, renamed onto it when the block succeeds.

    With a `mark` it is a new folder, without one a file to be written. A block that raises leaves
    the target as it was, and nothing beside it. `force` as in `check_target`.
    """
    check_target(target, force, mark)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        scratch = Path(
            tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        )
    except OSError as error:  # names the target, not the folder beside it
        raise OSError(error.errno, error.strerror, str(target)) from error
    try:
        content = scratch / target.name
        if mark is not None:
            content.mkdir()
        yield content
        check_target(target, force, mark)
        if target.is_symlink() or target.exists():
            target.rename(scratch / "replaced")
        content.rename(target)
        fsync_directory(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
