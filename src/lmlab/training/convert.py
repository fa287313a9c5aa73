"""A checkpoint in the other layout, and what a checkpoint holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lmlab.errors import UserError
from lmlab.layout import Layout, checkpoint_name, layout_of, step_of
from lmlab.training.agreement import WriteError, reason
from lmlab.training.checkpoint import read_checkpoint, require_sound, write_plain
from lmlab.training.manifest import read_manifest


@dataclass(frozen=True)
class Description:
    """What a sound checkpoint holds."""

    layout: Layout
    step: int
    tokens: int
    processes: int
    """How many processes wrote it."""
    files: int
    size: int
    """Bytes on the disk."""
    weights: dict[str, tuple[tuple[int, ...], str]]
    """Shape and data type of each weight; a tied one under each of its names."""
    parameters: int
    """Number of weights, tied ones once."""
    optimizer: int | None
    """Number of parameters with an optimizer state; None: it was imported, and has no optimizer."""


def convert(checkpoint: Path, to: Layout) -> Path:
    """Write a checkpoint in another layout beside itself, and return the new one.

    Raises UserError when it has that layout, is damaged, the other one is there, or it cannot be
    written.
    """
    if layout_of(checkpoint) == to:
        raise UserError(f"{checkpoint} is {to} already")
    target = checkpoint.with_name(checkpoint_name(step_of(checkpoint), to))
    if target.exists():
        raise UserError(f"{target} exists already")
    state = read_checkpoint(checkpoint)
    try:
        if to == "plain":
            write_plain(target, state)
        else:
            from lmlab.training.sharded_checkpoint import split, write_sharded

            write_sharded(target, split(state))
    except (OSError, RuntimeError, WriteError) as error:
        raise UserError(f"cannot write {target}: {reason(error)}; free disk space") from error
    return target


def describe(checkpoint: Path) -> Description:
    """Return what a checkpoint of either layout holds, without reading its tensors into memory.

    Raises UserError when it is damaged.
    """
    require_sound(checkpoint)
    try:
        values, weights, aliases, optimizer, processes = (
            _sharded(checkpoint) if layout_of(checkpoint) == "sharded" else _plain(checkpoint)
        )
        step, tokens = values["step"], values["progress"]["tokens"]
    except Exception as error:  # sound files of something else fail in many ways
        raise UserError(f"{checkpoint} is not a checkpoint ({reason(error)})") from error
    files = list(checkpoint.iterdir()) if checkpoint.is_dir() else [checkpoint]
    return Description(
        layout=layout_of(checkpoint),
        step=step,
        tokens=tokens,
        processes=processes,
        files=len(files),
        size=sum(path.stat().st_size for path in files),
        weights={
            name: (tuple(shape), str(dtype).removeprefix("torch."))
            for name, (shape, dtype) in (weights | aliases).items()
        },
        parameters=sum(shape.numel() for shape, _ in weights.values()),
        optimizer=None if values["optimizer"] is None else optimizer,
    )


Shapes = dict[str, tuple[torch.Size, torch.dtype]]
Found = tuple[dict[str, Any], Shapes, Shapes, int, int]
"""Values, weights, further names of weights, parameters with a state, and processes."""


def _plain(path: Path) -> Found:
    from lmlab.training.sharded_checkpoint import split

    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    tensors, values = split(state)
    stored = {key: (tensor.shape, tensor.dtype) for key, tensor in tensors.items()}
    optimizer = len(state["optimizer"]["state"]) if state["optimizer"] else 0
    return values, *_weights(stored, values), optimizer, 1


def _sharded(path: Path) -> Found:
    from lmlab.training.sharded_checkpoint import VALUES, stored_tensors

    values = torch.load(path / VALUES, map_location="cpu", weights_only=True)
    stored = {
        key: (tensor.size, tensor.properties.dtype) for key, tensor in stored_tensors(path).items()
    }
    scalars = values["optimizer"]["scalars"] if values["optimizer"] else {}
    slots = [key for key in (*stored, *scalars) if key.startswith("optimizer.")]
    optimizer = len({key.rpartition(".")[0] for key in slots})
    return values, *_weights(stored, values), optimizer, read_manifest(path)["processes"]


def _weights(stored: Shapes, values: dict[str, Any]) -> tuple[Shapes, Shapes]:
    prefix = "model."
    weights = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
    return weights, {name: weights[first] for name, first in values["aliases"].items()}
