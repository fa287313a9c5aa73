"""Small demonstrations of what the hardware does: rounding, autocast, fusion, recomputation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.profiler import ProfilerActivity

from lmlab.errors import UserError
from lmlab.gpu.names import BYTES
from lmlab.kernels.once import once_differentiable
from lmlab.model.config import ModelConfig
from lmlab.model.transformer import Transformer
from lmlab.profiling.ranges import parts
from lmlab.text import aligned_table

ADDENDS, ADDEND = 1000, 0.01


def accumulate(sums: torch.dtype, addends: torch.dtype, *, converted: bool = False) -> float:
    """Return 0.01 added 1000 times, each sum rounded to one dtype, each addend to another.

    `converted` turns each rounded addend into the dtype of the sum first.
    """
    total = torch.tensor(0.0, dtype=sums)
    for _ in range(ADDENDS):
        addend = torch.tensor(ADDEND, dtype=addends)
        total += addend.to(sums) if converted else addend
    return total.item()


def accumulation() -> list[str]:
    """Return the sums of four ways to add 0.01 a thousand times; exact is 10."""
    half, single = torch.float16, torch.float32
    ways = [
        ("float32", "float32", accumulate(single, single)),
        ("float16", "float16", accumulate(half, half)),
        ("float32", "float16", accumulate(single, half)),
        ("float32", "float16, converted first", accumulate(single, half, converted=True)),
    ]
    rows = [("sum in", "result", "addend in")]
    rows += [(sums, f"{total:.4f}", addends) for sums, addends, total in ways]
    return [
        f"{ADDEND} added {ADDENDS:,} times",
        *aligned_table(rows),
        "A float16 sum is rounded at every addition, and the errors add up; 0.01 in float16 is "
        "0.02 % too large, each time. So products take 16 bits, and their sums 32.",
    ]


def dtypes(config: ModelConfig, dtype: torch.dtype = torch.bfloat16) -> list[str]:
    """Return the dtype of each module's weights, input and output under autocast on the CPU."""
    model = Transformer(config, 256)
    named = [(module, name) for module, name in parts(model) if not name.startswith("block ")]
    named += [(m, "linear layer") for m in model.modules() if type(m).__name__ == "Linear"]
    seen: dict[str, tuple[str, str, str]] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            weights = {_name(p.dtype) for p in module.parameters()}
            seen[name] = (", ".join(sorted(weights)), _name(inputs[0].dtype), _name(output.dtype))

        return look

    for module, name in named:
        module.register_forward_hook(hook(name))
    ids = torch.zeros(1, min(16, config.context_length), dtype=torch.long)
    with torch.autocast("cpu", dtype=dtype):
        logits = model(ids)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten())
    loss.backward()
    grads = {_name(p.grad.dtype) for p in model.parameters() if p.grad is not None}
    rows = [("module", "weights", "input", "output")]
    rows += [(name, *seen[name]) for name in dict.fromkeys(n for _, n in named) if name in seen]
    rows += [("loss", "", _name(logits.dtype), _name(loss.dtype))]
    rows += [("gradients", "", "", ", ".join(sorted(grads)))]
    return [
        f"autocast to {_name(dtype)}",
        *aligned_table(rows),
        "Matrix products are computed in 16 bits from weights that stay float32; norms, the loss "
        "and the gradients of the weights are float32.",
    ]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def sine_and_cosine(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return `sin(x)^2 + cos(x)^2`, which is 1."""
    return torch.sin(x) ** 2 + torch.cos(x) ** 2


@dataclass(frozen=True)
class Fusion:
    """Kernels of one function, eager and compiled."""

    eager: list[str]
    """Operators, each of which is one kernel."""
    compiled: int


def count_kernels(
    function: Callable[[Tensor], Tensor] = sine_and_cosine, size: int = 2**20
) -> Fusion:
    """Return how many kernels a function of one tensor runs, eager and compiled, on the CPU.

    Eager, the profiler counts the operators that no other one calls: each is a kernel with a pass
    over the memory. Compiled, inductor counts the kernels that it generates. Raises UserError where
    nothing can be compiled.
    """
    import torch._dynamo
    import torch._inductor.metrics as metrics

    x = torch.linspace(0, 1, size)
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profile:
        function(x)
    events = profile.events() or []
    eager = [e.name for e in events if e.cpu_parent is None and e.name.startswith("aten::")]
    torch._dynamo.reset()
    metrics.reset()
    try:
        y = torch.compile(function)(x)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"torch.compile does not work here: {str(error).splitlines()[0]}"
        ) from error
    assert torch.allclose(y, function(x), atol=1e-6)
    return Fusion(eager, metrics.generated_kernel_count)


def fusion() -> list[str]:
    """Return the kernels of `sin(x)^2 + cos(x)^2`, eager and compiled, and the bytes they move."""
    size = 2**20
    found = count_kernels(size=size)
    each = size * BYTES["fp32"] / 1e6
    # sin, cos and the squares read one tensor and write one, the sum reads two
    moved = (2 * len(found.eager) + 1) * each
    rows = [
        ("", "kernels", "MB moved", ""),
        ("eager", f"{len(found.eager)}", f"{moved:.1f}", ", ".join(found.eager)),
        ("compiled", f"{found.compiled}", f"{2 * each:.1f}", "one pass: read x, write the result"),
    ]
    return [
        f"sin(x)^2 + cos(x)^2 of {size:,} float32 numbers",
        *aligned_table(rows),
        "Eager kernels are the profiler's operators; compiled ones are those that inductor made.",
    ]


def three_sigmoids(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return `sigmoid(sigmoid(sigmoid(x)))`; the backward pass of each needs its result."""
    return torch.sigmoid(torch.sigmoid(torch.sigmoid(x)))


class Recomputed(torch.autograd.Function):
    """`three_sigmoids` that saves its input alone, and recomputes the rest (Chen et al. 2016)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the result, computed without a graph."""
        ctx.save_for_backward(x)
        return three_sigmoids(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Return the gradient, from a second forward pass."""
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = three_sigmoids(x)
        (grad,) = torch.autograd.grad(y, x, grads[0])
        return grad


@dataclass(frozen=True)
class Saved:
    """What one way of differentiating costs."""

    tensors: int
    """Tensors kept from the forward pass for the backward pass."""
    sigmoids: int
    """Sigmoids computed in both passes."""
    grad: Tensor


def count_saved(function: Callable[[Tensor], Tensor], size: int = 1000) -> Saved:
    """Return the tensors that a function saves, and how often it computes a sigmoid."""
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.data_ptr()] = tensor
        return tensor

    x = torch.linspace(-1, 1, size).requires_grad_()
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profile:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = function(x)
        count = len(saved)
        y.sum().backward()
    sigmoids = sum(event.name == "aten::sigmoid" for event in profile.events() or [])
    assert x.grad is not None
    return Saved(count, sigmoids, x.grad)


def recomputation() -> list[str]:
    """Return the tensors that three sigmoids save, with and without recomputation."""
    ways = [
        ("save each result", count_saved(three_sigmoids)),
        ("recompute", count_saved(Recomputed.apply)),
    ]
    difference = (ways[0][1].grad - ways[1][1].grad).abs().max().item()
    rows = [("three sigmoids", "tensors saved", "sigmoids computed", "")]
    rows += [(name, f"{found.tensors}", f"{found.sigmoids}", "") for name, found in ways]
    return [
        *aligned_table(rows),
        f"largest difference of the gradients: {difference:g}",
        "trainer.checkpoint_activations=true does the same with whole blocks.",
    ]
