"""Data parallelism step by step, from one all-reduce a parameter to overlapped buckets.

Every process has the whole model and computes the gradient on its part of the batch; the gradients
are averaged (Li et al. 2020, sections 3.1 and 3.2).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lmlab.parallel.strategy import Strategy

MIB = 2**20


def all_reduce(tensor: Tensor) -> Any:
    """Begin to add up a tensor over all processes; `wait()` of the result ends it."""
    return dist.all_reduce(tensor, async_op=True)


class DataParallel(nn.Module, ABC):
    """A module with the weights of rank 0; the base of all variants.

    After the backward pass of the last micro-batch `finish_gradient_synchronization` must be
    called. Parameters without a gradient, the same ones in every process, are left out.
    `communicate` begins to add up a tensor over all processes, and returns what can be waited for.
    """

    def __init__(
        self, module: nn.Module, communicate: Callable[[Tensor], Any] = all_reduce
    ) -> None:
        super().__init__()
        self.module = module
        self.communicate = communicate
        self.trained = [p for p in module.parameters() if p.requires_grad]
        self._syncs = True
        for tensor in module.state_dict(keep_vars=True).values():
            dist.broadcast(tensor.detach(), src=0)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the module's result."""
        return self.module(*args, **kwargs)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Keep the gradients of backward passes to this process: they add up."""
        self._syncs = False
        try:
            yield
        finally:
            self._syncs = True

    @abstractmethod
    def finish_gradient_synchronization(self) -> None:
        """Wait until every gradient is the mean over all processes."""


class NaiveDDP(DataParallel):
    """One all-reduce for each parameter, one after the other, after the backward pass."""

    def finish_gradient_synchronization(self) -> None:
        """Average all gradients."""
        for parameter in self.trained:
            if parameter.grad is not None:
                self.communicate(parameter.grad).wait()
                parameter.grad.div_(dist.get_world_size())


class FlatDDP(DataParallel):
    """One all-reduce of all gradients in one tensor, after the backward pass."""

    def finish_gradient_synchronization(self) -> None:
        """Average all gradients."""
        grads = [p.grad for p in self.trained if p.grad is not None]
        for same in _by_dtype(grads):
            flat = torch.cat([grad.flatten() for grad in same])
            self.communicate(flat).wait()
            _unflatten(flat.div_(dist.get_world_size()), same)


class OrderedDDP(DataParallel):
    """Begins to send groups of gradients during the backward pass, in a fixed order.

    The order in which gradients become ready can differ between processes, for instance in a
    compiled model whose code depends on the data. A group therefore waits for those before it:
    messages of different parameters would be added up.
    """

    def __init__(
        self,
        module: nn.Module,
        groups: Callable[[Iterable[nn.Parameter]], Iterable[list[nn.Parameter]]],
        communicate: Callable[[Tensor], Any],
    ) -> None:
        super().__init__(module, communicate)
        # Reversed, about the order of the backward pass.
        self.buckets = list(groups(reversed(self.trained)))
        bucket_of = {p: i for i, bucket in enumerate(self.buckets) for p in bucket}
        self._running: list[tuple[Any, Tensor, list[Tensor]]] = []
        self._begin_step()
        for parameter in self.trained:
            parameter.register_post_accumulate_grad_hook(
                lambda _, number=bucket_of[parameter]: self._count(number)
            )

    def _begin_step(self) -> None:
        self._missing = [len(bucket) for bucket in self.buckets]
        self._next = 0

    def _count(self, number: int) -> None:
        if not self._syncs:
            return
        self._missing[number] -= 1
        while self._next < len(self.buckets) and self._missing[self._next] == 0:
            self._send(self.buckets[self._next])
            self._next += 1

    def _send(self, bucket: list[nn.Parameter]) -> None:
        grads = [p.grad for p in bucket if p.grad is not None]
        if grads:
            message = self._joined(grads)
            self._running.append((self.communicate(message), message, grads))

    def _joined(self, grads: list[Tensor]) -> Tensor:
        """Return the message with the gradients of a group."""
        return torch.cat([grad.flatten() for grad in grads])

    def finish_gradient_synchronization(self) -> None:
        """Send the groups that lack a gradient, wait for all, and average them."""
        for bucket in self.buckets[self._next :]:
            self._send(bucket)
        for work, message, grads in self._running:
            work.wait()
            message.div_(dist.get_world_size())
            if message is not grads[0]:
                _unflatten(message, grads)
        self._running.clear()
        self._begin_step()


class OverlappedDDP(OrderedDDP):
    """One all-reduce for each parameter, begun as soon as its gradient is ready."""

    def __init__(
        self, module: nn.Module, communicate: Callable[[Tensor], Any] = all_reduce
    ) -> None:
        super().__init__(module, lambda parameters: ([p] for p in parameters), communicate)

    def _joined(self, grads: list[Tensor]) -> Tensor:
        return grads[0]  # which needs no copy


class BucketedDDP(OrderedDDP):
    """One all-reduce for each bucket of gradients, begun as soon as its last gradient is ready.

    Buckets are filled with the parameters in reverse order up to `bucket_size_mb` MiB; None: one
    bucket. A parameter larger than a bucket has one of its own. Raises ValueError for a size that
    is not positive.
    """

    def __init__(
        self,
        module: nn.Module,
        bucket_size_mb: float | None = 25.0,
        communicate: Callable[[Tensor], Any] = all_reduce,
    ) -> None:
        if bucket_size_mb is not None and bucket_size_mb <= 0:
            raise ValueError(f"bucket_size_mb must be positive, got {bucket_size_mb}")
        limit = float("inf") if bucket_size_mb is None else bucket_size_mb * MIB
        super().__init__(module, partial(fill_buckets, limit=limit), communicate)


def fill_buckets(parameters: Iterable[nn.Parameter], limit: float) -> Iterator[list[nn.Parameter]]:
    """Yield the parameters in buckets of up to `limit` bytes and of one dtype each."""
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if bucket and (size + parameter.nbytes > limit or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.nbytes
    if bucket:
        yield bucket


def _by_dtype(tensors: list[Tensor]) -> Iterable[list[Tensor]]:
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return groups.values()


def _unflatten(flat: Tensor, tensors: list[Tensor]) -> None:
    """Copy the pieces of a flat tensor to where they came from."""
    pieces = flat.split([tensor.numel() for tensor in tensors])
    for tensor, piece in zip(tensors, pieces, strict=True):
        tensor.copy_(piece.view_as(tensor))


class ManualDDP(Strategy):
    """A variant of `DataParallel` as a strategy."""

    module: DataParallel

    def __init__(self, variant: Callable[[nn.Module], DataParallel]) -> None:
        self.variant = variant

    def wrap(self, objective: nn.Module, model: nn.Module) -> nn.Module:
        """Return the objective in the variant."""
        self.module = self.variant(objective)
        return self.module

    def accumulating(self) -> AbstractContextManager[object]:
        """Return `no_sync` of the variant."""
        return self.module.no_sync()

    def finish_gradients(self) -> None:
        """Call `finish_gradient_synchronization` of the variant."""
        self.module.finish_gradient_synchronization()
