"""Sharded checkpoints: a folder into which each process writes its part of the tensors.

Tensors are stored by torch.distributed.checkpoint under `model.NAME` and `optimizer.NAME.SLOT`,
with the parameter names of the plain model, so that any number of processes and any strategy can
read them. All other values lie in `values.pt`; `manifest.json`, written last, holds checksums.
"""

import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, distribute_tensor

from lmlab.files import atomic_write, fsync_directory
from lmlab.training.agreement import WriteError, agreed, located, reason
from lmlab.training.manifest import Record, records, write_manifest

VALUES, METADATA = "values.pt", ".metadata"
Split = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by their key in the folder, and all other values."""


def split(state: dict[str, Any]) -> Split:
    """Return the tensors of model and optimizer by their key, and the other values.

    A tensor that the model has under several names (tied embeddings) is stored once.
    """
    values = {key: value for key, value in state.items() if key not in ("model", "optimizer")}
    tensors: dict[str, Tensor] = {}
    first: dict[Any, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in state["model"].items():
        original = first.setdefault(_place(tensor), name)
        if original == name:
            tensors[f"model.{name}"] = tensor
        else:
            aliases[name] = original
    values["aliases"] = aliases
    optimizer = state["optimizer"]
    values["optimizer"] = optimizer and {"param_groups": optimizer["param_groups"], "scalars": {}}
    for number, name in _names(optimizer["param_groups"] if optimizer else []):
        for slot, value in optimizer["state"].get(number, {}).items():
            key = f"optimizer.{name}.{slot}"
            (tensors if isinstance(value, Tensor) else values["optimizer"]["scalars"])[key] = value
    return tensors, values


def staged(parts: Split) -> Split:
    """Return a copy in CPU memory, of sharded tensors only this process's part."""
    stager = DefaultStager(StagingOptions(False, False, False, False))
    copies: Any = stager.stage({"tensors": parts[0], "values": parts[1]})
    stager.close()
    return copies["tensors"], copies["values"]


def write_sharded(target: Path, parts: Split, group: Any = None) -> None:
    """Write a checkpoint folder and publish it by one rename; all processes of `group` call it.

    Raises WriteError, in all processes, when one of them cannot write. A sound folder of this name
    is left as it is. Without a group one process writes everything.
    """
    rank, size = (dist.get_rank(group), dist.get_world_size(group)) if group else (0, 1)
    unfinished = target.with_name(f".{target.name}.tmp")
    tensors, values = parts

    def on_main(compute: Callable[[], Any]) -> Any:
        return agreed(lambda: compute() if rank == 0 else None, group)[0]

    try:
        if not on_main(lambda: _begin(target, unfinished, values)):
            return
        _save(unfinished, tensors, group)
        found = agreed(lambda: records(unfinished.glob(f"__{rank}_*")), group)
        on_main(lambda: _publish(unfinished, target, found, size))
    except BaseException:
        if rank == 0:
            shutil.rmtree(unfinished, ignore_errors=True)
        raise


def read_sharded(
    path: Path, like: Mapping[str, Tensor], *, optimizer: bool = True
) -> dict[str, Any]:
    """Return the state in a checkpoint folder in the form of the plain one.

    Parameters that are sharded in `like`, the weights of the own model, and their optimizer state
    are read as sharded tensors: each process reads its part only. With `optimizer=False` the
    optimizer is left out, None.
    """
    values = torch.load(path / VALUES, map_location="cpu", weights_only=True)
    tensors: dict[str, Any] = {}
    for key, stored in stored_tensors(path).items():
        part, _, name = key.partition(".")
        if part == "optimizer" and not optimizer:
            continue
        own = like.get(name if part == "model" else name.rpartition(".")[0])
        dtype = stored.properties.dtype
        if isinstance(own, DTensor) and own.shape == stored.size:
            tensors[key] = torch.empty_like(own, dtype=dtype, requires_grad=False)
        else:
            tensors[key] = torch.empty(stored.size, dtype=dtype)
    try:
        with _without_warnings():
            load(tensors, storage_reader=_Reader(path), no_dist=True)
    except CheckpointException as error:  # which is no Exception
        raise next(cause for cause, _ in error.failures.values()) from error
    return _joined(tensors, values, optimizer)


def stored_tensors(path: Path) -> dict[str, TensorStorageMetadata]:
    """Return shape and type of each tensor in a checkpoint folder, by its key."""
    found = {}
    for key, stored in _Reader(path).read_metadata().state_dict_metadata.items():
        if not isinstance(stored, TensorStorageMetadata):
            raise ValueError(f"{key} is not a tensor")
        found[key] = stored
    return found


def fitted(value: Any, own: Tensor) -> Any:
    """Return a whole tensor as the sharded one that `own` is; anything else as it is."""
    if not isinstance(value, Tensor) or isinstance(value, DTensor) or not isinstance(own, DTensor):
        return value
    if value.shape != own.shape:
        return value
    whole = value.to(own.device)  # each process has it: nothing is communicated
    return distribute_tensor(whole, own.device_mesh, own.placements, src_data_rank=None).clone()


def _begin(target: Path, unfinished: Path, values: dict[str, Any]) -> bool:
    """Begin an unfinished folder; returns False when the finished one is there."""
    if target.exists():
        return False
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)
    with atomic_write(unfinished / VALUES, "wb") as file:
        torch.save(values, file)
    return True


def _save(folder: Path, tensors: dict[str, Tensor], group: Any) -> None:
    try:
        with _without_warnings():
            save(
                tensors,
                storage_writer=FileSystemWriter(folder),  # which calls fsync
                process_group=group,
                no_dist=group is None,
            )
    except CheckpointException as error:  # in all processes
        rank, (cause, _) = min(error.failures.items(), key=lambda item: item[0])
        raise WriteError(located(reason(cause), rank, group)) from error


def _publish(
    unfinished: Path, target: Path, found: list[dict[str, Record]], processes: int
) -> None:
    files = records([unfinished / VALUES, unfinished / METADATA])
    for own in found:
        files |= own
    write_manifest(unfinished, files, processes)
    unfinished.rename(target)
    fsync_directory(target.parent)


def _names(groups: list[dict[str, Any]]) -> Iterator[tuple[int, str]]:
    """Yield number and name of each parameter; earlier versions stored no names."""
    for group in groups:
        names = group.get("param_names", map(str, group["params"]))
        yield from zip(group["params"], names, strict=True)


def _joined(tensors: dict[str, Tensor], values: dict[str, Any], optimizer: bool) -> dict[str, Any]:
    model = {
        key.removeprefix("model."): tensor
        for key, tensor in tensors.items()
        if key.startswith("model.")
    }
    model |= {name: model[original] for name, original in values.pop("aliases").items()}
    saved = values.pop("optimizer")
    state = values | {"model": model, "optimizer": None}
    if saved is None or not optimizer:
        return state
    numbers = {name: number for number, name in _names(saved["param_groups"])}
    slots: dict[int, dict[str, Any]] = {}
    for key, value in (saved["scalars"] | tensors).items():
        part, _, rest = key.partition(".")
        if part == "optimizer":
            name, _, slot = rest.rpartition(".")
            slots.setdefault(numbers[name], {})[slot] = value
    ordered = {number: slots[number] for number in sorted(slots)}
    return state | {"optimizer": {"state": ordered, "param_groups": saved["param_groups"]}}


def _place(tensor: Tensor) -> Any:
    """Return what identifies the memory of a tensor, the same in all processes."""
    if isinstance(tensor, DTensor) or not tensor.numel():
        return id(tensor)
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device


@contextmanager
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


class _Reader(FileSystemReader):
    """Reads the metadata, a pickle, without the right to run code."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with (Path(self.path) / METADATA).open("rb") as file:
            metadata: Metadata = _Unpickler(file).load()
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Unpickler(pickle.Unpickler):
    ALLOWED: ClassVar = {
        "torch": {"Size"},
        "torch.serialization": {"_get_layout"},
        "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
        "torch.distributed.checkpoint.metadata": {
            *("ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta"),
            *("TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING"),
        },
        "pathlib": {"PosixPath", "WindowsPath"},
    }

    def find_class(self, module: str, name: str) -> Any:
        if name in self.ALLOWED.get(module, ()):
            return super().find_class(module, name)
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        raise pickle.UnpicklingError(f"{METADATA} refers to {module}.{name}")
