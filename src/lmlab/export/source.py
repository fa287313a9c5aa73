"""The tensors of a folder of transformers, read one at a time."""

import json
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from lmlab.errors import UserError
from lmlab.export.extras import package

SAFETENSORS, TORCH = "model.safetensors", "pytorch_model.bin"
BUFFERS = re.compile(r"(^|\.)(rotary_emb\.inv_freq|attn\.(masked_)?bias)$")
"""Tables that earlier versions of transformers stored among the weights."""


class Source:
    """Tensors by name, in safetensors or PyTorch files, whole or in several with an index.

    Files are mapped into memory, so that only the tensor that is read takes any.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[Path, Any] = {}
        self.prefix = ""
        self.files = self._files()

    def _files(self) -> dict[str, Path]:
        for name in (SAFETENSORS, TORCH):
            index = self.folder / f"{name}.index.json"
            if (self.folder / name).is_file():
                path = self.folder / name
                return dict.fromkeys(self._keys(path), path)
            if index.is_file():
                return self._indexed(index)
        raise UserError(
            f"{self.folder} has no weights: neither {SAFETENSORS} nor {TORCH}, nor an index of them"
        )

    def _indexed(self, index: Path) -> dict[str, Path]:
        try:
            where = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names = {str(key): str(name) for key, name in where.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{index}: not an index of weights: {error}") from error
        files: dict[str, Path] = {}
        for name in sorted(set(names.values())):
            path = self.folder / name
            if Path(name).name != name or not path.is_file():
                raise UserError(f"{index}: names {name}, which is not in the folder")
            files |= dict.fromkeys(self._keys(path), path)
        if lost := sorted(set(names) - set(files)):
            raise UserError(f"{index}: names {lost[0]}, which is not in {names[lost[0]]}")
        return files

    def _keys(self, path: Path) -> list[str]:
        opened = self._opened(path)
        return list(opened.keys())

    def _opened(self, path: Path) -> Any:
        if path not in self._open:
            try:
                if path.suffix == ".safetensors":
                    self._open[path] = package("safetensors").safe_open(path, framework="pt")
                else:
                    weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
                    if not isinstance(weights, dict) or not all(
                        isinstance(x, Tensor) for x in weights.values()
                    ):
                        raise UserError(f"{path} does not hold tensors by name")
                    self._open[path] = weights
            except UserError:
                raise
            except UnpicklingError as error:
                raise UserError(f"{path} holds more than tensors, which is not read") from error
            except Exception as error:  # damaged files fail in many ways
                lines = str(error).strip().splitlines() or [type(error).__name__]
                raise UserError(
                    f"{path} is damaged, or not what its name says: {lines[0]}"
                ) from error
        return self._open[path]

    def add_prefix(self, prefix: str) -> None:
        """Put a prefix before all names, if none has it: some files leave it out."""
        if not any(name.startswith(prefix) for name in self.files):
            self.prefix = prefix
            kept = ("lm_head.",)
            self.files = {
                name if name.startswith(kept) else prefix + name: path
                for name, path in self.files.items()
            }

    def names(self) -> set[str]:
        """Return the names of weights, without buffers."""
        return {name for name in self.files if not BUFFERS.search(name)}

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        opened, stored = self._opened(self.files[name]), name.removeprefix(self.prefix)
        if isinstance(opened, dict):
            return tuple(opened[stored].shape)
        return tuple(opened.get_slice(stored).get_shape())

    def get(self, name: str) -> Tensor:
        """Return a tensor in float32."""
        opened, stored = self._opened(self.files[name]), name.removeprefix(self.prefix)
        x: Tensor = opened[stored] if isinstance(opened, dict) else opened.get_tensor(stored)
        if not x.is_floating_point():
            raise UserError(f"{self.files[name]}: {name} is {x.dtype}, not floating point")
        return x.float()
