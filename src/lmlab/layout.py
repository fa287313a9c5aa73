"""The layout of a run directory, and which run and checkpoint a path means."""

import re
from pathlib import Path
from typing import Literal

from lmlab.errors import UserError
from lmlab.files import is_plain_file

CONFIG, TOKENIZER, CHECKPOINTS = "config.yaml", "tokenizer", "checkpoints"
LATEST = "latest"
"""The link to the newest checkpoint."""
Layout = Literal["plain", "sharded"]
"""A checkpoint is one file, or a folder into which each process writes its shards."""
SUFFIXES: dict[Layout, str] = {"plain": ".pt", "sharded": ".dcp"}
_NAME = re.compile(r"step_(\d{8})\.(pt|dcp)")


def checkpoint_name(step: int, layout: Layout) -> str:
    """Return the name of a checkpoint in `checkpoints/`."""
    return f"step_{step:08d}{SUFFIXES[layout]}"


def layout_of(checkpoint: Path) -> Layout:
    """Return the layout of a checkpoint, by its name."""
    return "sharded" if checkpoint.suffix == SUFFIXES["sharded"] else "plain"


def step_of(path: Path) -> int:
    """Return the step in a checkpoint's name; raises UserError for any other name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise UserError(
            f"{path} is not a checkpoint; expected a name like {checkpoint_name(500, 'plain')} or "
            f"{checkpoint_name(500, 'sharded')}"
        )
    return int(match[1])


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the newest first; of one step the sharded one first."""
    found = [path for path in folder.glob("step_*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (-step_of(path), path.suffix))


def run_of(path: Path) -> Path:
    """Return the run directory that a path means: itself, or that of a checkpoint in it."""
    return path.parent.parent if _is_in_checkpoints(path) else path


def checkpoint_of(path: Path) -> Path:
    """Return the checkpoint that a path means: itself, or the newest of a run directory.

    Raises UserError when there is none.
    """
    if _is_in_checkpoints(path) and path.name == LATEST:
        path = path.parent.parent  # a link, which copying may have made a file or a folder
    if is_plain_file(path) or _is_in_checkpoints(path):
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


def _is_in_checkpoints(path: Path) -> bool:
    """Whether a path is a file, or a sharded checkpoint, in the `checkpoints/` of a run."""
    if path.parent.name != CHECKPOINTS:
        return False
    named = path.name == LATEST or path.suffix == SUFFIXES["sharded"]
    return is_plain_file(path) or (named and path.is_dir())
