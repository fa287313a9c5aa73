"""What would make a model fit that fits in no plan."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from lmlab.accounting.text import amount
from lmlab.errors import UserError
from lmlab.planning.layouts import layouts
from lmlab.planning.links import Cluster
from lmlab.planning.plan import Plan, Planner, Row, Training, with_batch

CHUNK = 1024
LARGEST = 16
"""How many times the devices are tried at most."""
SMALLEST = ("none", "fsdp", "tp")
"""Strategies that need least memory, of those that are planned where none is named."""


def advice(plan: Plan, cluster_for: Callable[[int], Cluster]) -> str:
    """Return the least memory of any plan, what of it is largest, and what would make it fit.

    `cluster_for` returns the cluster of a number of devices.
    """
    smallest = plan.smallest()
    assert smallest is not None
    assert smallest.memory is not None
    memory = smallest.memory
    largest = max(memory.parts(), key=lambda name: memory.parts()[name])
    text = (
        f"no plan fits: the least is {amount(memory.total)} a device ({smallest.layout}, "
        f"micro-batch {smallest.micro_batch}), most of it {largest}; "
        f"{amount(plan.usable)} are usable"
    )
    remedies = list(_remedies(plan, cluster_for))
    if remedies:
        return f"{text}; it fits with {' or with '.join(remedies)}"
    return f"{text}; lower model.context_length, or choose a smaller model or a larger device"


def _remedies(plan: Plan, cluster_for: Callable[[int], Cluster]) -> Iterator[str]:
    training, cluster = plan.training, plan.cluster
    if training.request.kind is not None:
        anyhow = replace(training, request=replace(training.request, kind=None, given={}))
        if best := _best(plan, anyhow, cluster):
            yield " ".join(best.layout.overrides)
    chunked = replace(training, chunk_tokens=CHUNK)
    if training.chunk_tokens is None and _best(plan, chunked, cluster):
        yield f"task.objective.chunk_tokens={CHUNK}"
    for factor in (2, 4, 8, LARGEST):
        try:
            more = cluster_for(factor * cluster.devices)
        except UserError:  # links that are not known
            return
        larger = with_batch(training, more.devices)
        if _best(plan, larger, more):
            same = larger.batch_size == training.batch_size
            batch = "" if same else f" trainer.batch_size={larger.batch_size}"
            yield f"--devices {more.devices}{batch}"
            return


def _best(plan: Plan, training: Training, cluster: Cluster) -> Row | None:
    """Return the best plan of the smallest strategies; None: none fits or is possible."""
    tried = Planner(training, plan.sheet, cluster, plan.usable, plan.attainable)
    try:
        found = layouts(cluster, training.request)
    except UserError:
        return None
    if training.request.kind is None:
        found = [layout for layout in found if layout.kind in SMALLEST]
    return tried.plan(found).best
