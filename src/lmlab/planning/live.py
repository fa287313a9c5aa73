"""Bytes that tensors hold at a time, counted while a model runs on fake tensors."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operations allocate inside, until they are freed.

    Gradients that have been accumulated into a parameter of `modules` are counted apart.
    """

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.grads = self.peak_without_grads = 0
        self._sizes: dict[int, int] = {}
        self._known: set[int] = set()
        self._modules = modules
        self._hooks: list[Any] = []

    def __enter__(self) -> "LiveBytes":
        for module in self._modules:
            for tensor in (*module.parameters(), *module.buffers()):
                self.ignore(tensor)
            for parameter in module.parameters():
                hook = parameter.register_post_accumulate_grad_hook(self._accumulated)
                self._hooks.append(hook)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self._hooks:
            hook.remove()

    def ignore(self, tensor: Tensor) -> None:
        """Do not count a tensor that is there already."""
        storage = tensor.untyped_storage()
        self._known.add(id(storage))
        weakref.finalize(storage, self._known.discard, id(storage))

    def restart(self) -> None:
        """Measure peaks from here on."""
        self.peak, self.peak_without_grads = self.now, self.now - self.grads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._add(leaf for leaf in tree_iter(out) if isinstance(leaf, Tensor))
        return out

    def _add(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = id(storage)
            if key in self._known or key in self._sizes:
                continue
            self._sizes[key] = size = storage.nbytes()
            self.now += size
            weakref.finalize(storage, self._free, key)
        self.peak = max(self.peak, self.now)
        self.peak_without_grads = max(self.peak_without_grads, self.now - self.grads)

    def _free(self, key: int) -> None:
        self.now -= self._sizes.pop(key)

    def _accumulated(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        size = self._sizes.get(id(parameter.grad.untyped_storage()))
        if size is not None:
            self.grads += size


def fake(model: nn.Module, dtype: torch.dtype | None = None) -> None:
    """Put what a model has on the meta device onto a fake CPU; inside a FakeTensorMode.

    With `dtype` those parameters get that dtype. Parameters that modules share stay shared.
    """
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None or not tensor.is_meta:
                    continue
                if id(tensor) not in made:
                    is_parameter = isinstance(tensor, nn.Parameter)
                    kind = (dtype or tensor.dtype) if is_parameter else tensor.dtype
                    empty = torch.empty(tensor.shape, dtype=kind, device="cpu")
                    made[id(tensor)] = nn.Parameter(empty) if is_parameter else empty
                tensors[name] = made[id(tensor)]  # type: ignore[assignment]
