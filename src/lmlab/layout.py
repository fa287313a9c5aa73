"""The layout of a run directory, and which run and checkpoint a path means."""

import re
from pathlib import Path

from lmlab.errors import UserError
from lmlab.files import is_plain_file

CONFIG, TOKENIZER, CHECKPOINTS = "config.yaml", "tokenizer", "checkpoints"
LATEST = "latest"
"""The link to the newest checkpoint."""
_NAME = re.compile(r"step_(\d{8})\.pt")


def step_of(path: Path) -> int:
    """Return the step in a checkpoint's name; raises UserError for any other name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise UserError(f"{path} is not a checkpoint; expected a name like step_00000500.pt")
    return int(match[1])


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the newest first."""
    return sorted((p for p in folder.glob("step_*.pt") if _NAME.fullmatch(p.name)), reverse=True)


def run_of(path: Path) -> Path:
    """Return the run directory that a path means: itself, or that of a checkpoint in it."""
    if is_plain_file(path) and path.parent.name == CHECKPOINTS:
        return path.parent.parent
    return path


def checkpoint_of(path: Path) -> Path:
    """Return the checkpoint that a path means: itself, or the newest of a run directory.

    Raises UserError when there is none.
    """
    if is_plain_file(path) and path.name == LATEST:
        path = path.parent.parent  # a link, which copying may have made a file
    if is_plain_file(path):
        path = path.resolve()
        step_of(path)
        if path.parent.name != CHECKPOINTS:
            raise UserError(f"{path} is not in the {CHECKPOINTS}/ of a run directory; copy the run")
        return path
    if not path.is_dir():
        raise UserError(f"{path} does not exist; give a run directory or one of its checkpoints")
    found = checkpoints_in(path / CHECKPOINTS)
    if not found:
        raise UserError(f"{path} has no checkpoint in {CHECKPOINTS}/")
    return found[0].resolve()
