"""Optimizer state divided among processes: stage 1 of ZeRO (Rajbhandari et al. 2020)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from lmlab.parallel.ddp import DDP
from lmlab.parallel.division import Division


class ShardedOptimizer(Optimizer):
    """An optimizer of any class of which each process runs the part for its own parameters.

    Each process owns about 1/world of the elements, in whole parameters, and keeps the state of
    those alone; after a step it sends them to the others. Gradients must be the same everywhere.
    """

    def __init__(
        self, params: Iterable[Any], optimizer_cls: type[Optimizer], **kwargs: Any
    ) -> None:
        together = dist.is_initialized()
        self.rank = dist.get_rank() if together else 0
        self.size = dist.get_world_size() if together else 1
        self.owner: dict[Tensor, int] = {}
        """Rank that updates each parameter."""
        self.inner: Optimizer | None = None
        """Updates the parameters of this process; its groups may be empty."""
        self._make = lambda group: optimizer_cls([group], **kwargs)
        super().__init__(params, {})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, and give each of its parameters to the process with the fewest elements."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        elements = [0] * self.size
        for parameter, rank in self.owner.items():
            elements[rank] += parameter.numel()
        for parameter in sorted(group["params"], key=torch.numel, reverse=True):
            self.owner[parameter] = elements.index(min(elements))
            elements[self.owner[parameter]] += parameter.numel()
        own = group | {"params": [p for p in group["params"] if self.owner[p] == self.rank]}
        if self.inner is None:
            self.inner = self._make(own)
        else:
            self.inner.add_param_group(own)
        group |= _hyperparameters(self.inner.param_groups[-1])
        self.state = self.inner.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters of this process, then get those of the others from their owners.

        Returns the closure's loss, if any. All processes must call it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        assert self.inner is not None
        for group, own in zip(self.param_groups, self.inner.param_groups, strict=True):
            own |= _hyperparameters(group)
        self.inner.step()
        if self.size > 1:
            for work in [
                dist.broadcast(parameter.detach(), src=rank, async_op=True)
                for parameter, rank in self.owner.items()
            ]:
                work.wait()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the state as the unsharded optimizer would, whole on rank 0 and on the CPU.

        Other ranks return their part. All processes must call it.
        """
        assert self.inner is not None
        numbers = {p: i for i, p in enumerate(self._parameters())}
        own = {numbers[p]: _on_cpu(state) for p, state in self.inner.state.items()}
        parts: list[Any] = [None] * self.size if self.rank == 0 else []
        if self.size > 1:
            dist.gather_object(own, parts or None)
        state = {i: values for part in parts or [own] for i, values in (part or own).items()}
        groups = [
            _hyperparameters(group) | {"params": [numbers[p] for p in group["params"]]}
            for group in self.param_groups
        ]
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load this process's part of the whole state; raises ValueError when it does not fit."""
        assert self.inner is not None
        groups = state_dict["param_groups"]
        sizes = [[len(group["params"]) for group in side] for side in (groups, self.param_groups)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"groups of {sizes[0]} parameters do not fit groups of {sizes[1]}")
        state: dict[int, Any] = {}
        own_groups: list[dict[str, Any]] = []
        place = 0
        for saved, group in zip(groups, self.param_groups, strict=True):
            places = []
            for number, parameter in zip(saved["params"], group["params"], strict=True):
                if self.owner[parameter] != self.rank:
                    continue
                if number in state_dict["state"]:
                    state[place] = state_dict["state"][number]
                places.append(place)
                place += 1
            own_groups.append(_hyperparameters(saved) | {"params": places})
            group |= _hyperparameters(saved)
        self.inner.load_state_dict({"state": state, "param_groups": own_groups})
        self.state = self.inner.state

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]


def _hyperparameters(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}


def _on_cpu(state: dict[str, Any]) -> dict[str, Any]:
    return {k: v.cpu() if isinstance(v, Tensor) else v for k, v in state.items()}


class Zero1(DDP):
    """torch's DDP for the gradients, and the optimizer's state divided among the processes."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.division = Division(optimizer_state=dist.get_world_size())

    def optimizer(self, cls: type[Optimizer], params: Iterable[Any], **kwargs: Any) -> Optimizer:
        """Return the sharded optimizer."""
        return ShardedOptimizer(params, cls, **kwargs)
