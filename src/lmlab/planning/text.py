"""What `lmlab plan` prints."""

import shlex
from collections.abc import Sequence
from typing import Any

from lmlab.accounting.text import amount
from lmlab.planning.links import REACHED
from lmlab.planning.plan import Plan, Row
from lmlab.text import aligned_table, duration

KEYS = ("parallel", "trainer.micro_batch_size", "trainer.checkpoint_activations")
"""Keys that a plan decides."""
HEAD = ("weights", "gradients", "optimizer", "activations", "logits", "buffers", "total")


def table(plan: Plan, every: bool) -> list[str]:
    """Return the table: the best plan of each layout, or every plan."""
    head = ("strategy", "micro-batch", *HEAD, "step", "exposed", "MFU", "")
    rows: list[tuple[str, ...]] = [head]
    _, size = _unit(plan)
    for row in plan.rows if every else best_rows(plan):
        name = f"{row.layout}{', checkpointed' if row.checkpointed else ''}"
        if row.memory is None or row.time is None:
            rows.append((name, *[""] * (len(head) - 2), row.problem))
            continue
        parts = (*row.memory.parts().values(), row.memory.total)
        sizes = [f"{value / size:,.1f}" for value in parts]
        note = "<- recommended" if row is plan.best else "" if plan.fits(row) else "does not fit"
        timed = row.time
        rows.append(
            (
                name,
                f"{row.micro_batch}",
                *sizes,
                duration(timed.total),
                f"{timed.exposed / timed.total:.0%}",
                f"{plan.mfu(row):.2f}",
                note,
            )
        )
    return aligned_table(rows)


def _unit(plan: Plan) -> tuple[str, float]:
    """Return the unit of memory in which the smallest plan can be read, and its bytes."""
    totals = (row.memory.total for row in plan.rows if row.memory)
    return ("MB", 1e6) if min(totals, default=1e9) < 1e9 else ("GB", 1e9)


def best_rows(plan: Plan) -> list[Row]:
    """Return the fastest plan of each layout that fits, the smallest of those where none fits."""
    found = []
    for layout in dict.fromkeys(row.layout for row in plan.rows):
        rows = [row for row in plan.rows if row.layout == layout]
        smallest = min(rows, key=lambda row: row.memory.total if row.memory else 0.0)
        found.append(plan.best_of(rows) or smallest)
    return found


def described(plan: Plan) -> list[str]:
    """Return what is planned for, and the model of its time."""
    cluster, training = plan.cluster, plan.training
    where = f"{cluster.devices} x {plan.sheet.name}"
    if cluster.nodes > 1:
        where += f", {cluster.nodes} nodes of {cluster.per_node}"
    links = []
    if cluster.per_node > 1 and cluster.link:
        links.append(f"{amount(cluster.link)}/s inside a node")
    if cluster.nodes > 1 and cluster.network:
        links.append(f"{amount(cluster.network)}/s a device between nodes")
    peak = plan.sheet.peak(training.precision)
    return [
        f"{plan.parameters:,} parameters; batch {training.batch_size:,} sequences of "
        f"{training.model.context_length:,} tokens; "
        f"{training.optimizer.kind}, {training.precision}",
        f"{where}, {amount(plan.usable)} of {amount(plan.sheet.memory)} usable",
        f"time: {plan.attainable:.0%} of {peak / 1e12:,.0f} TFLOP/s"
        + "".join(f", {REACHED:.0%} of {link}" for link in links),
        f"memory in {_unit(plan)[0]} a device at the fullest moment; exposed: share of a step in "
        "communication that no compute hides",
    ]


def reason(plan: Plan, best: Row) -> str:
    """Return why a plan is recommended."""
    assert best.memory is not None
    assert best.time is not None
    text = (
        f"{amount(best.memory.total)} a device, {best.time.exposed / best.time.total:.0%} exposed"
    )
    others = [row for row in best_rows(plan) if row.layout != best.layout and row.time]
    first = next((row for row in others if row.layout.kind == "ddp"), None)
    if first is not None and first.memory and not plan.fits(first):
        text += f"; ddp needs {amount(first.memory.total)}"
    slower = [row for row in others if plan.fits(row) and row.time]
    if slower:
        near = min(slower, key=lambda row: row.time.total if row.time else 0.0)
        assert near.time is not None
        factor = near.time.total / best.time.total - 1
        if factor > 0.02:
            text += f"; the next, {near.layout}, takes {factor:.0%} longer"
        else:
            text += f"; {near.layout} is as fast, and less simple or larger"
    if best.checkpointed:
        text += "; without checkpointed activations no plan of it fits or is as fast"
    return text


def command(plan: Plan, best: Row, overrides: Sequence[str], launcher: str) -> str:
    """Return the command that trains by a plan: on Slurm, with torchrun, or alone."""
    named = [(each, each.lstrip("+").split("=")[0]) for each in overrides]
    given = [each for each, key in named if key not in KEYS and not key.startswith("parallel.")]
    chosen = [*best.layout.overrides, f"trainer.micro_batch_size={best.micro_batch}"]
    if best.checkpointed:
        chosen.append("trainer.checkpoint_activations=true")
    cluster = plan.cluster
    if launcher == "slurm":
        nodes, tasks = cluster.nodes, cluster.per_node
        chosen += ["hydra/launcher=submitit_slurm", f"slurm.nodes={nodes}"]
        chosen += [f"slurm.tasks_per_node={tasks}", f"slurm.gpus_per_node={tasks}"]
        start = ["python"]
    elif cluster.devices == 1:
        start = ["python"]
    else:
        start = ["torchrun", f"--nproc-per-node={cluster.per_node}"]
    return shlex.join([*start, "train.py", *given, *chosen])


def values(plan: Plan) -> dict[str, Any]:
    """Return the plan as plain values, bytes and seconds."""
    best = plan.best
    return {
        "parameters": plan.parameters,
        "devices": plan.cluster.devices,
        "device": plan.sheet.name,
        "usable_bytes": plan.usable,
        "recommended": None if best is None else plan.rows.index(best),
        "plans": [_row(plan, row) for row in plan.rows],
    }


def _row(plan: Plan, row: Row) -> dict[str, Any]:
    known: dict[str, Any] = {"overrides": row.layout.overrides}
    if row.memory is None or row.time is None:
        return known | {"problem": row.problem}
    timed = row.time
    return known | {
        "micro_batch_size": row.micro_batch,
        "checkpoint_activations": row.checkpointed,
        "fits": plan.fits(row),
        "bytes": row.memory.parts() | {"total": row.memory.total, "moment": row.memory.moment},
        "seconds": {
            "compute": timed.compute,
            "update": timed.update,
            "communication": timed.communication,
            "exposed": timed.exposed,
            "total": timed.total,
        },
        "tokens_per_second": plan.tokens / timed.total,
        "mfu": plan.mfu(row),
    }
