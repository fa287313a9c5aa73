"""What each process does beside the training, and what all do when one of them fails."""

import errno
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist


class WriteError(Exception):
    """A process could not write its part; raised in all processes, with the same line."""


def agreed(compute: Callable[[], Any], group: Any) -> list[Any]:
    """Return what `compute` returned in each process of a group; None is this process alone.

    Raises WriteError in all processes when `compute` failed in one.
    """
    value, failure = None, None
    try:
        value = compute()
    except Exception as error:  # whatever it is, the others wait for this process
        failure = reason(error)
    outcomes: list[Any] = [(value, failure)]
    if group is not None:
        outcomes *= dist.get_world_size(group)
        dist.all_gather_object(outcomes, (value, failure), group=group)
    for rank, (_, failed) in enumerate(outcomes):
        if failed is not None:
            raise WriteError(located(failed, rank, group))
    return [value for value, _ in outcomes]


def located(failure: str, rank: int, group: Any) -> str:
    """Return why a process failed, and which one, where there are several."""
    return failure if group is None else f"{failure} (process {rank})"


def reason(error: BaseException) -> str:
    """Return one line that says why a file could not be written or read."""
    if isinstance(error, MemoryError) and not str(error):
        return "not enough memory"
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
        error = error.__context__  # torch's writer of archives fails once more when it is closed
    lines = str(getattr(error, "strerror", None) or error).splitlines()
    return lines[0] if lines else type(error).__name__


def is_damage(error: BaseException) -> bool:
    """Return whether an error says that a file is damaged, not that this process cannot read it.

    A lack of memory, of open files or of permission says nothing about the file.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return False
    if isinstance(error, OSError):  # a wrong offset in a file is an invalid argument
        return error.errno in (None, errno.EINVAL)
    return "allocate memory" not in str(error)
