"""Checkpoints: published atomically, pruned, and read back from the newest sound one."""

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import nn
from torch.optim import Optimizer

from lmlab.errors import UserError
from lmlab.files import atomic_write
from lmlab.layout import LATEST, checkpoint_name, checkpoints_in, layout_of, step_of
from lmlab.training.agreement import WriteError, agreed, is_damage, reason
from lmlab.training.distributed import SINGLE_PROCESS, DistributedContext
from lmlab.training.manifest import verify

if TYPE_CHECKING:
    from lmlab.training.sharded_checkpoint import Split


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
    """The folder `checkpoints/` of a run: the newest `keep` checkpoints, and `latest`.

    A state whose weights are sharded is written as a folder `step_00000500.dcp` by all processes,
    any other one as a file `step_00000500.pt` by the main process. It is copied when it is saved,
    and written by a thread beside the training. All processes call the methods alike, except for
    those that change files: the main process calls them.
    """

    def __init__(
        self, folder: Path, keep: int, distributed: DistributedContext = SINGLE_PROCESS
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.distributed = distributed
        self._writing: threading.Thread | None = None
        self._failure: Exception | None = None
        self._group: Any = None

    @property
    def failed(self) -> bool:
        """Whether this process knows that the last checkpoint could not be written."""
        return self._failure is not None

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Copy the state of a step and begin to write it; waits for the previous one."""
        self.wait()
        if is_sharded(state.get("model", {})):
            if self._group is None:  # for the thread alone
                self._group = self.distributed.new_control_group()
            from lmlab.training.sharded_checkpoint import split, staged

            self._begin(self._write_sharded, step, staged(split(state)))
        elif self.distributed.is_main_process:
            self._begin(self.write, step, copied(state))

    def wait(self) -> None:
        """Wait until the last state is on the disk.

        Raises UserError, in all processes, when it could not be written; earlier ones stay.
        """
        self.join()
        failure, self._failure = self._failure, None
        for found in self.distributed.gather(failure):
            if found is not None:
                raise found

    def join(self) -> None:
        """Wait until nothing is being written."""
        if self._writing is not None:
            self._writing.join()

    def write(self, step: int, state: dict[str, Any]) -> None:
        """Write the state of a step as a file, in this process; raises UserError."""
        path = self.folder / checkpoint_name(step, "plain")
        try:
            write_plain(path, state)
            self._keep_newest(path)
        except (OSError, RuntimeError) as error:
            raise self._not_written(path, reason(error)) from error

    def load(
        self, like: Mapping[str, torch.Tensor] | None = None
    ) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the newest sound state or None, and a warning for each damaged one.

        It is the newest that is sound in all processes. `like` is as for `read_checkpoint`. Raises
        UserError, in all processes, when one cannot read a checkpoint that may be sound.
        """
        warnings: list[str] = []
        paths = self.distributed.from_main(lambda: checkpoints_in(self.folder))
        for path in paths:
            state, problem = None, None
            try:
                state = _read(path, like or {}, distributed=self.distributed)
            except Exception as error:  # damaged files fail in many ways
                problem = is_damage(error), reason(error)
            problems = [found for found in self.distributed.gather(problem) if found is not None]
            if not problems:
                return state, warnings
            damaged, why = min(problems)
            if not damaged:
                raise UserError(
                    f"cannot read checkpoint {path}: {why}; solve that and continue with "
                    f"resume={self.folder.parent}"
                )
            then = "there is no earlier one" if path == paths[-1] else "trying the previous one"
            warnings.append(f"{path} is damaged ({why}): {then}")
        return None, warnings

    def quarantine(self, after: int, suffix: str = ".damaged") -> None:
        """Rename the checkpoints newer than a step, so that the next ones do not compete with them.

        They would count among the newest that are kept, and push out the sound ones that follow.
        """
        for path in checkpoints_in(self.folder):
            if step_of(path) > after:
                aside = path.with_suffix(suffix) if path.is_file() else Path(f"{path}{suffix}")
                _remove(aside)
                path.rename(aside)

    def go_back_to(self, path: Path) -> None:
        """Rename what is newer than `path` to `.superseded`: the run repeats its steps."""
        self.quarantine(after=step_of(path), suffix=".superseded")
        self._point_to(path)

    def clean(self) -> None:
        """Remove the unfinished files and folders of a killed process."""
        for unfinished in self.folder.glob(".step_*.tmp"):
            _remove(unfinished)

    def _begin(self, write: Callable[[int, Any], None], step: int, state: Any) -> None:
        def guarded() -> None:
            try:
                write(step, state)
            except Exception as error:  # raised by `wait`
                self._failure = error

        self._writing = threading.Thread(target=guarded)
        self._writing.start()

    def _write_sharded(self, step: int, parts: "Split") -> None:
        from lmlab.training.sharded_checkpoint import write_sharded

        path = self.folder / checkpoint_name(step, "sharded")
        main = self.distributed.is_main_process
        try:
            write_sharded(path, parts, self._group)
            agreed(lambda: self._keep_newest(path) if main else None, self._group)
        except WriteError as error:
            raise self._not_written(path, str(error)) from error

    def _not_written(self, path: Path, why: str) -> UserError:
        last = next(iter(checkpoints_in(self.folder)), None)
        kept = f"{last.name} is safe" if last else "none was saved before"
        return UserError(
            f"cannot write checkpoint {path}: {why}; {kept}; "
            f"free disk space and continue with resume={self.folder.parent}"
        )

    def _keep_newest(self, path: Path) -> None:
        self._point_to(path)
        found = checkpoints_in(self.folder)
        kept = sorted({step_of(old) for old in found}, reverse=True)[: self.keep]
        for old in found:
            if step_of(old) not in kept:
                _remove(old)

    def _point_to(self, path: Path) -> None:
        temporary = self.folder / f".{LATEST}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(path.name)
        temporary.replace(self.folder / LATEST)


def is_sharded(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether some tensors are spread over the processes (DTensor)."""
    return any(hasattr(tensor, "device_mesh") for tensor in tensors.values())


def write_plain(path: Path, state: dict[str, Any]) -> None:
    """Write a state to a checkpoint file, atomically."""
    with atomic_write(path, "wb") as file:
        torch.save(state, file)


def read_checkpoint(
    path: Path, like: Mapping[str, torch.Tensor] | None = None, *, optimizer: bool = True
) -> dict[str, Any]:
    """Return the state in a checkpoint of either layout; raises UserError if it cannot be read.

    Where weights are sharded in `like`, those of the own model, a sharded checkpoint is read as
    such. `optimizer=False` may leave out the optimizer.
    """
    with _damage(path):
        return _read(path, like or {}, optimizer=optimizer)


def require_sound(path: Path) -> None:
    """Raise UserError unless all checksums of a checkpoint are right."""
    with _damage(path):
        _verify(path)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # damaged files fail in many ways
        if not is_damage(error):
            raise UserError(f"cannot read checkpoint {path}: {reason(error)}") from error
        raise UserError(f"{path} is damaged ({reason(error)}); use another checkpoint") from error


def _read(
    path: Path,
    like: Mapping[str, torch.Tensor],
    *,
    optimizer: bool = True,
    distributed: DistributedContext = SINGLE_PROCESS,
) -> dict[str, Any]:
    _verify(path, distributed)
    if layout_of(path) == "sharded":
        from lmlab.training.sharded_checkpoint import read_sharded

        return read_sharded(path, like, optimizer=optimizer)
    # All processes of a node share the memory of a file that is mapped.
    mapped = is_sharded(like)
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    if not isinstance(state, dict) or "step" not in state:
        raise ValueError("not a checkpoint")
    return state


def _verify(path: Path, distributed: DistributedContext = SINGLE_PROCESS) -> None:
    """Raise an error when a checksum is wrong; processes share the files of a folder."""
    if layout_of(path) == "sharded":
        verify(path, distributed.rank, distributed.size)
        return
    with ZipFile(path) as archive:  # torch.load does not look at the checksums
        if (part := archive.testzip()) is not None:
            raise BadZipFile(f"the checksum of {part} is wrong")


def _remove(path: Path) -> None:
    """Remove a file or a folder; a folder gets a name that `clean` knows first."""
    if path.is_dir() and not path.is_symlink():
        hidden = path if path.name.startswith(".") else path.with_name(f".{path.name}.tmp")
        path.rename(hidden)
        shutil.rmtree(hidden)
    else:
        path.unlink(missing_ok=True)


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
