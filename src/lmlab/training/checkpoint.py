"""Checkpoints: published atomically, pruned, and read back from the newest sound one."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import nn
from torch.optim import Optimizer

from lmlab.errors import UserError
from lmlab.files import atomic_write
from lmlab.layout import LATEST, checkpoints_in, step_of


def save_checkpoint(
    model: nn.Module, optimizer: Optimizer, iteration: int, out: str | Path | IO[bytes]
) -> None:
    """Write model, optimizer and iteration to a path or a file object."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state | {"iteration": iteration}, out)


def load_checkpoint(src: str | Path | IO[bytes], model: nn.Module, optimizer: Optimizer) -> int:
    """Read what `save_checkpoint` wrote into model and optimizer; returns the iteration."""
    state = torch.load(src, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["iteration"])


class Checkpoints:
    """The folder `checkpoints/` of a run: the newest `keep` of `step_00000500.pt`, and `latest`.

    A state is copied when it is saved, and written by a thread beside the training.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep
        self._writing: threading.Thread | None = None
        self._failure: UserError | None = None

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Copy the state of a step and begin to write it; waits for the previous one."""
        self.wait()
        self._writing = threading.Thread(target=self.write, args=(step, copied(state)))
        self._writing.start()

    def wait(self) -> None:
        """Wait until the last state is on the disk; raises as `check` does."""
        if self._writing is not None:
            self._writing.join()
        self.check()

    def check(self) -> None:
        """Raise UserError when a checkpoint could not be written; earlier ones stay."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def write(self, step: int, state: dict[str, Any]) -> None:
        """Write the state of a step; `check` raises what goes wrong."""
        path = self.folder / f"step_{step:08d}.pt"
        try:
            with atomic_write(path, "wb") as file:
                torch.save(state, file)
            self._point_to(path)
            for old in checkpoints_in(self.folder)[self.keep :]:
                old.unlink(missing_ok=True)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            last = next(iter(checkpoints_in(self.folder)), None)
            kept = f"{last.name} is safe" if last else "none was saved before"
            self._failure = UserError(
                f"cannot write checkpoint {path}: {reason}; {kept}; "
                f"free disk space and continue with resume={self.folder.parent}"
            )

    def load(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the newest sound state or None, and a warning for each damaged one."""
        warnings: list[str] = []
        for path in checkpoints_in(self.folder):
            try:
                return _read(path), warnings
            except Exception as error:  # damaged files fail in many ways
                warnings.append(f"{path} is damaged ({_reason(error)}): trying the previous one")
        return None, warnings

    def quarantine(self, after: int, suffix: str = ".damaged") -> None:
        """Rename the checkpoints newer than a step, so that the next ones do not compete with them.

        They would count among the newest that are kept, and push out the sound ones that follow.
        """
        for path in checkpoints_in(self.folder):
            if step_of(path) > after:
                path.rename(path.with_suffix(suffix))

    def go_back_to(self, path: Path) -> None:
        """Rename what is newer than `path` to `.superseded`: the run repeats its steps."""
        self.quarantine(after=step_of(path), suffix=".superseded")
        self._point_to(path)

    def clean(self) -> None:
        """Remove the unfinished files of a killed process."""
        for unfinished in self.folder.glob(".step_*.tmp"):
            unfinished.unlink(missing_ok=True)

    def _point_to(self, path: Path) -> None:
        temporary = self.folder / f".{LATEST}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(path.name)
        temporary.replace(self.folder / LATEST)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state in a checkpoint file; raises UserError when it is damaged."""
    try:
        return _read(path)
    except Exception as error:  # damaged files fail in many ways
        raise UserError(f"{path} is damaged ({_reason(error)}); use another checkpoint") from error


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read(path: Path) -> dict[str, Any]:
    with ZipFile(path) as archive:  # torch.load does not look at the checksums
        if (part := archive.testzip()) is not None:
            raise BadZipFile(f"the checksum of {part} is wrong")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or "step" not in state:
        raise ValueError("not a checkpoint")
    return state


def copied(state: Any) -> Any:
    """Return a deep copy in CPU memory; tensors that share memory share it in the copy too."""
    copies: dict[Any, torch.Tensor] = {}

    def copy(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            place = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device)
            if place not in copies:
                copies[place] = value.detach().to("cpu", copy=True)
            return copies[place]
        if isinstance(value, Mapping):
            return {key: copy(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(copy(item) for item in value)
        return value

    return copy(state)
