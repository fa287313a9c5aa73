"""`lmlab benchmark attention`: times and memory of attention by head width and length."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lmlab.accounting.fit import available_memory
from lmlab.accounting.text import amount
from lmlab.model.layers import scaled_dot_product_attention
from lmlab.profiling.benchmark import OUT_OF_MEMORY, is_out_of_memory, mean_and_deviation
from lmlab.text import markdown_table
from lmlab.training.throughput import synchronize

SCORES_AT_ONCE = 5
"""Matrices of all scores that eager attention holds at its peak: scores, masked, probabilities,
and two gradients."""


@dataclass(frozen=True)
class Result:
    """Attention at one head width and length; seconds of each repetition."""

    forward: list[float]
    backward: list[float]
    memory: int
    """Bytes that the forward pass left for the backward pass, with inputs and output."""


def measure(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
    shape: tuple[int, int, int],
    device: torch.device,
    dtype: torch.dtype,
    repeats: int,
) -> Result:
    """Return times and memory of attention on random (batch, N, d) inputs, after one warmup."""
    q, k, v = (torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3))
    forward, backward, memory = [], [], 0
    for repeat in range(repeats + 1):
        saved: dict[int, int] = {}

        def pack(tensor: Tensor, saved: dict[int, int] = saved) -> Tensor:
            saved.update(_storages(tensor))
            return tensor

        synchronize(device)
        began = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = attend(q, k, v)
        synchronize(device)
        middle = time.perf_counter()
        # What a GPU has allocated contains more: workspaces, and what other code still holds.
        memory = sum((saved | _storages(q, k, v, out)).values())
        grad = torch.ones_like(out)
        synchronize(device)
        before = time.perf_counter()
        out.backward(grad)
        synchronize(device)
        ended = time.perf_counter()
        if repeat:
            forward.append(middle - began)
            backward.append(ended - before)
        q.grad = k.grad = v.grad = None
        del out, grad
    return Result(forward, backward, memory)


def _storages(*tensors: Tensor) -> dict[int, int]:
    """Return the address and the bytes of what holds each tensor."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def eager(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return causal attention with all scores in memory."""
    length = q.shape[-2]
    mask = torch.ones(length, length, dtype=torch.bool, device=q.device).tril()
    return scaled_dot_product_attention(q, k, v, mask)


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return causal attention by torch's fused kernels."""
    q, k, v = (x.unsqueeze(1) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).squeeze(1)


BACKENDS = {"eager": eager, "sdpa": sdpa}


def attention_table(
    backend: str,
    widths: Sequence[int],
    lengths: Sequence[int],
    batch: int,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float32,
    repeats: int = 10,
    budget: float | None = None,
) -> str:
    """Return a Markdown table of forward time, memory before the backward pass, and its time.

    A row that does not fit into memory says so. With a `budget` in seconds, lengths that would
    take longer by the time of the one before are left out, and their rows say so.
    """
    rows = []
    for width in widths:
        last, previous = 0.0, 1
        for length in lengths:
            row = [f"{width}", f"{length}"]
            expected = last * (length / previous) ** 2  # as the scores grow
            if budget is not None and expected > budget:
                rows.append([*row, f"not run: above {budget:g} s", "", ""])
                continue
            began = time.perf_counter()
            result = _try(backend, (batch, length, width), device, dtype, repeats)
            if result is None:
                rows.append([*row, OUT_OF_MEMORY, "", ""])
                continue
            last, previous = time.perf_counter() - began, length
            times = [mean_and_deviation(each) for each in (result.forward, result.backward)]
            rows.append([*row, times[0], amount(result.memory), times[1]])
    header = ["d", "N", "forward (ms)", "memory before backward", "backward (ms)"]
    return markdown_table(header, rows)


def _try(
    backend: str,
    shape: tuple[int, int, int],
    device: torch.device,
    dtype: torch.dtype,
    repeats: int,
) -> Result | None:
    """Return the measurement; None when the memory does not suffice."""
    free = available_memory(device)
    scores = shape[0] * shape[1] ** 2 * dtype.itemsize
    on_cpu = backend == "eager" and device.type == "cpu"
    if on_cpu and free is not None and SCORES_AT_ONCE * scores > free:
        return None  # Linux would end the process
    try:
        return measure(BACKENDS[backend], shape, device, dtype, repeats)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
