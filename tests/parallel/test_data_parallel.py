"""The course's data parallelism: what is sent, when, in which order, and what that saves."""

from typing import Any

import pytest
import torch
from processes import in_processes
from torch import Tensor, nn

from lmlab.parallel.data_parallel import BucketedDDP, FlatDDP, NaiveDDP, OverlappedDDP
from lmlab.training.distributed import DistributedContext

LAYERS, WIDTH = 4, 8
BYTES = WIDTH * WIDTH * 4
"""Bytes of one layer's gradient."""


class Delayed:
    """Communication in which a message arrives only once somebody waits for it; notes the order."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def __call__(self, tensor: Tensor) -> "Message":
        self.events.append(f"send {tensor.numel() * 4 // BYTES}")
        return Message(self.events)


class Message:
    def __init__(self, events: list[str]) -> None:
        self.events = events

    def wait(self) -> None:
        self.events.append("sent")


def events_of(context: DistributedContext, variant: Any, arguments: dict[str, Any]) -> list[str]:
    """Return the order of the backward passes of the layers, and of what is sent."""
    events: list[str] = []
    layers = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))
    for number, layer in enumerate(layers):
        layer.register_full_backward_hook(lambda *_, number=number: events.append(f"back {number}"))
    model = variant(layers, **arguments, communicate=Delayed(events))
    with model.no_sync():
        model(torch.ones(2, WIDTH)).sum().backward()
    assert events == [f"back {i}" for i in reversed(range(LAYERS))]
    events.clear()
    model(torch.ones(2, WIDTH, requires_grad=True)).sum().backward()
    events.append("end of backward")
    model.finish_gradient_synchronization()
    return events


def sends(events: list[str]) -> list[int]:
    """Return how many layers each message carries."""
    return [int(event.split()[1]) for event in events if event.startswith("send ")]


@pytest.mark.parametrize(("variant", "carried"), [(NaiveDDP, [1] * LAYERS), (FlatDDP, [LAYERS])])
def test_what_does_not_overlap(variant: Any, carried: list[int]) -> None:
    (events,) = in_processes(1, events_of, variant, {})
    assert sends(events) == carried
    first = events.index(f"send {carried[0]}")
    assert first > events.index("end of backward")
    # one after the other: each message has arrived before the next one leaves
    assert events[first:] == [e for n in carried for e in (f"send {n}", "sent")]


@pytest.mark.parametrize(
    ("variant", "arguments", "carried"),
    [
        (OverlappedDDP, {}, [1, 1, 1, 1]),
        (BucketedDDP, {"bucket_size_mb": 2 * BYTES / 2**20}, [2, 2]),
        (BucketedDDP, {"bucket_size_mb": 1e-9}, [1, 1, 1, 1]),
        (BucketedDDP, {"bucket_size_mb": None}, [4]),
    ],
)
def test_messages_leave_during_the_backward_pass(
    variant: Any, arguments: dict[str, Any], carried: list[int]
) -> None:
    (events,) = in_processes(1, events_of, variant, arguments)
    assert sends(events) == carried
    # The message with the gradients of the last layer leaves before the layers in front of it.
    done = 0
    for number, count in enumerate(carried):
        done += count
        place = [i for i, event in enumerate(events) if event.startswith("send ")][number]
        layers_behind = [e for e in events[:place] if e.startswith("back ")]
        assert len(layers_behind) <= done
        assert events.index("end of backward") > place
    # None arrives before all have left: the slowest message alone delays the step, not their sum.
    assert events.index("sent") > max(i for i, e in enumerate(events) if e.startswith("send "))


COMPUTE, TRAVEL = 3.0, 2.0
"""Seconds of a layer's backward pass, and of a message, on a clock that the test moves."""


class Clock:
    """Communication that delays every message; messages travel at the same time."""

    now = 0.0

    def __call__(self, tensor: Tensor) -> "Travelling":
        return Travelling(self, self.now + TRAVEL)


class Travelling:
    def __init__(self, clock: Clock, arrives: float) -> None:
        self.clock, self.arrives = clock, arrives

    def wait(self) -> None:
        self.clock.now = max(self.clock.now, self.arrives)


def seconds_of(context: DistributedContext, variant: Any, arguments: dict[str, Any]) -> float:
    """Return when a step ends whose backward passes and messages take their time."""
    clock = Clock()
    layers = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))
    for layer in layers:

        def compute(gradient: Tensor) -> None:
            clock.now += COMPUTE

        layer.weight.register_hook(compute)  # before the gradient is ready to be sent
    model = variant(layers, **arguments, communicate=clock)
    model(torch.ones(2, WIDTH)).sum().backward()
    model.finish_gradient_synchronization()
    return clock.now


@pytest.mark.parametrize(
    ("variant", "arguments", "seconds"),
    [
        (NaiveDDP, {}, LAYERS * COMPUTE + LAYERS * TRAVEL),
        (FlatDDP, {}, LAYERS * COMPUTE + TRAVEL),
        (OverlappedDDP, {}, LAYERS * COMPUTE + TRAVEL),
        (BucketedDDP, {"bucket_size_mb": 2 * BYTES / 2**20}, LAYERS * COMPUTE + TRAVEL),
    ],
)
def test_delayed_messages_cost_what_does_not_overlap(
    variant: Any, arguments: dict[str, Any], seconds: float
) -> None:
    """Of overlapped messages the last one alone is seen, of the others their sum."""
    (found,) = in_processes(1, seconds_of, variant, arguments)
    assert found == seconds


def gradients(context: DistributedContext, variant: Any, arguments: dict[str, Any]) -> Any:
    torch.manual_seed(context.rank)  # rank 0's weights are sent to the others
    module = nn.ModuleDict({"used": nn.Linear(3, 3), "frozen": nn.Linear(3, 3)})
    module["unused"] = nn.Linear(3, 3)
    module["narrow"] = nn.Linear(3, 3).bfloat16()
    module["frozen"].requires_grad_(False)
    model = variant(module, **arguments)
    x = torch.full((1, 3), float(context.rank + 1))
    hidden = module["frozen"](module["used"](x))
    (hidden.sum() + module["narrow"](x.bfloat16()).float().sum()).backward()
    model.finish_gradient_synchronization()
    return {name: (p.detach(), p.grad) for name, p in module.named_parameters()}


@pytest.mark.parametrize(
    ("variant", "arguments"),
    [(NaiveDDP, {}), (FlatDDP, {}), (OverlappedDDP, {}), (BucketedDDP, {"bucket_size_mb": 3e-5})],
)
def test_gradients_are_means_of_those_that_exist(variant: Any, arguments: dict[str, Any]) -> None:
    first, second = in_processes(2, gradients, variant, arguments)
    for name, (weight, grad) in first.items():
        assert torch.equal(weight, second[name][0])
        assert (grad is None) == name.startswith(("frozen", "unused"))
        assert grad is None or torch.equal(grad, second[name][1])
    mean = (1 + 2) / 2
    assert torch.equal(first["narrow.weight"][1], torch.full((3, 3), mean, dtype=torch.bfloat16))
    back = first["frozen.weight"][0].sum(0)
    torch.testing.assert_close(first["used.weight"][1], torch.outer(back, torch.full((3,), mean)))


class Crossed(nn.Module):
    """Two layers, one after the other, in another order in each process."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.rank = rank

    def forward(self, x: Tensor) -> Tensor:
        layers = [self.first, self.second]
        for layer in layers if self.rank else reversed(layers):
            x = layer(x)
        return x.sum()


def crossed_gradients(
    context: DistributedContext, variant: Any, arguments: dict[str, Any]
) -> tuple[dict[str, Tensor], ...]:
    """Return the mean of the gradients in all processes, and the synchronized ones."""
    module = Crossed(context.rank)
    model = variant(module, **arguments)
    x = torch.arange(3.0).add(context.rank).unsqueeze(0)
    with model.no_sync():
        model(x).backward()
    own = {name: p.grad.tolist() for name, p in module.named_parameters() if p.grad is not None}
    means = {
        name: torch.tensor([part[name] for part in context.gather(own)]).mean(dim=0) for name in own
    }
    module.zero_grad()
    model(x).backward()
    model.finish_gradient_synchronization()
    return means, {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("variant", "arguments"),
    [(NaiveDDP, {}), (FlatDDP, {}), (OverlappedDDP, {}), (BucketedDDP, {"bucket_size_mb": 3e-5})],
)
def test_processes_agree_on_the_order_of_messages(variant: Any, arguments: dict[str, Any]) -> None:
    for means, found in in_processes(2, crossed_gradients, variant, arguments):
        torch.testing.assert_close(found, means)
