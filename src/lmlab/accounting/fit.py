"""Whether a training run fits into memory, checked before anything is allocated."""

from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from lmlab.accounting.costs import Costs
from lmlab.accounting.text import amount
from lmlab.errors import NotEnoughMemory
from lmlab.parallel.division import WHOLE, Division

TOKEN = 2 * 8
"""Bytes of a token in a batch: input and target, int64."""
UNLIMITED = 2**62
"""Limits of a cgroup above this are no limits."""


@dataclass(frozen=True)
class LeastRows:
    """The least that each row of a batch has."""

    tokens: int
    """Of each of its sequences, padding among them."""
    labels: int
    """Tokens of all of its sequences that go through the output head."""
    sequences: int = 1


def require_memory(
    costs: Costs,
    device: torch.device,
    *,
    batch_size: int,
    micro_batch_size: int | None,
    chunk_tokens: int | None,
    steps: int,
    rows: LeastRows | None = None,
    reference: bool = False,
    processes: int = 1,
    division: Division = WHOLE,
) -> None:
    """Raise NotEnoughMemory when training certainly needs more memory than is available.

    The estimate is a lower bound for one process: weights, gradients, optimizer state, linear
    layers' activations of one micro-batch, its logits or a chunk of them, and the batch; with
    `reference` also the weights of a second model. Without `rows` a row fills the context. The
    batch is divided among `processes`, the rest as `division` says. Batches are made on the CPU,
    so both memories are checked. A device without a known size (MPS) is not.
    """
    rows = rows or LeastRows(costs.context_length, costs.context_length)
    own = max(1, batch_size // processes)
    at_once = min(micro_batch_size or own, own)
    labels = at_once * rows.labels
    batch = own * rows.sequences * rows.tokens * TOKEN
    weights = costs.weight_bytes // division.weights
    gradients = costs.gradient_bytes // division.weights
    state = costs.optimizer_bytes // division.optimizer_state
    kept = at_once * rows.sequences * rows.tokens * costs.least_activation_bytes
    activations = kept // costs.context_length // division.activations
    logits = min(chunk_tokens or labels, labels) * costs.logit_bytes_per_token
    accumulated = gradients if at_once < own else 0
    beside = {"reference": costs.weight_bytes} if reference else {}
    forward = {
        "weights": weights,
        "gradients": accumulated,
        "optimizer state": state if steps > 1 else 0,  # the first step allocates it at its end
        "activations": activations,
        "logits": logits,
        "batch": batch,
        **beside,
    }
    update = {
        "weights": weights,
        "gradients": gradients,
        "optimizer state": state,
        "batch": batch,
        **beside,
    }
    peak = max((forward, update), key=lambda parts: sum(parts.values()))
    for where, parts in ((device, peak), (torch.device("cpu"), {"batch": batch})):
        available = available_memory(where)
        if available is None or sum(parts.values()) <= available:
            continue
        largest = max(parts, key=lambda name: parts[name])
        key, advice = _advice(largest, at_once, micro_batch_size, batch_size)
        listed = ", ".join(f"{name} {amount(size)}" for name, size in parts.items() if size)
        raise NotEnoughMemory(
            key,
            f"training needs at least {amount(sum(parts.values()))} ({listed}) for "
            f"micro_batch_size={at_once}, {amount(available)} are available on '{where}'; "
            f"{advice}, or set trainer.check_memory=false",
        )


def _advice(
    largest: str, at_once: int, micro_batch_size: int | None, batch_size: int
) -> tuple[str, str]:
    """Return the key that makes the largest part large, and how to lower it."""
    if largest == "batch":
        return "trainer.batch_size", f"lower it from {batch_size:,}"
    if largest in ("activations", "logits") and at_once > 1:
        change = "set it" if micro_batch_size is None else "lower it"
        return "trainer.micro_batch_size", f"{change} below {at_once:,}"
    if largest == "activations":
        return "model.context_length", "lower it, or choose a smaller model"
    if largest == "logits":
        return "task.objective.chunk_tokens", "set it to 1024"
    return "model", "choose a smaller one"


def available_memory(device: torch.device) -> int | None:
    """Return the bytes that this process can still allocate on a device; None: unknown.

    On the CPU this includes swap, and respects the limits of Linux control groups.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    if device.type != "cpu":
        return None
    available = psutil.virtual_memory().available + psutil.swap_memory().free
    limit = cgroup_limit(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    if limit is None:
        return available
    return min(available, limit - psutil.Process().memory_info().rss)


def cgroup_limit(membership: Path, root: Path) -> int | None:
    """Return the smallest memory limit in bytes of a process's control groups; None: unlimited.

    `membership` is its `/proc/PID/cgroup`, `root` where version 1 or 2 is mounted.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return None
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            limits.append(_limit(folder / name))
            if folder == mount:
                break
    known = [limit for limit in limits if limit is not None and limit < UNLIMITED]
    return min(known, default=None)


def _limit(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no such group, or "max"
        return None
