"""What would make a model fit that fits in no plan."""

from dataclasses import replace

from lmlab.accounting.text import amount
from lmlab.planning.layouts import layouts
from lmlab.planning.links import Cluster
from lmlab.planning.plan import Plan, Planner, Training, with_batch

CHUNK = 1024
LARGEST = 16
"""How many times the devices are tried at most."""


def advice(plan: Plan) -> str:
    """Return the least memory of any plan, what of it is largest, and what would make it fit."""
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
    remedies = list(_remedies(plan))
    if remedies:
        return f"{text}; it fits with {' or with '.join(remedies)}"
    return f"{text}; lower model.context_length, or choose a smaller model or a larger device"


def _remedies(plan: Plan) -> list[str]:
    training, cluster = plan.training, plan.cluster
    found = []
    chunked = replace(training, chunk_tokens=CHUNK)
    if training.chunk_tokens is None and _fits(plan, chunked, cluster):
        found.append(f"task.objective.chunk_tokens={CHUNK}")
    if cluster.network or cluster.devices == 1:
        for factor in (2, 4, 8, LARGEST):
            more = replace(cluster, devices=factor * cluster.devices)
            more = replace(more, per_node=min(more.devices, plan.sheet.devices_per_node or 1))
            if more.nodes > 1 and more.network is None:
                break
            if _fits(plan, with_batch(training, more.devices), more):
                found.append(f"--devices {more.devices}")
                break
    return found


def _fits(plan: Plan, training: Training, cluster: Cluster) -> bool:
    tried = Planner(training, plan.sheet, cluster, plan.usable, plan.attainable)
    smallest = [layout for layout in layouts(cluster) if layout.kind in ("none", "fsdp", "tp")]
    return tried.plan(smallest).best is not None
