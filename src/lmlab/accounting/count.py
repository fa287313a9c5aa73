"""Parameters, FLOPs and activations of a model, counted by a forward pass on the meta device."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lmlab.model.attention.heads import HeadProjections
from lmlab.model.attention.softmax import SoftmaxAttention
from lmlab.model.ffn.glu import GLU
from lmlab.model.ffn.mlp import MLP
from lmlab.model.ffn.moe import MoE
from lmlab.model.norm import LayerNorm, RMSNorm
from lmlab.model.transformer import Transformer

PARTS = ("projections", "scores", "ffn", "head")
"""Parts of the FLOPs: Q, K, V, output; scores and weighted sums; feed-forward; output head."""
KEPT = {getattr(torch.ops.aten, name) for name in ("mm", "addmm", "bmm", "exp", "_softmax")}
"""Operations whose results are kept; `exp` is the one inside `layers.softmax`."""
LINEAR = {torch.ops.aten.mm, torch.ops.aten.addmm}
"""Operations of linear layers, whose results every backend and compiler keeps."""


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def forward_flops(model: nn.Module, context_length: int) -> int:
    """Return the FLOPs of the matrix products of one sequence's forward pass.

    A multiplication and an addition count as two; scores count in full, causal or not.
    """
    return sum(flops_by_module(model, context_length).values())


def flops_by_module(model: nn.Module, context_length: int) -> dict[str, int]:
    """Return the FLOPs of one sequence's forward pass by module, without those of its children."""
    with FlopCounterMode(display=False) as counter:
        _run(model, context_length)
    root = type(model).__name__
    totals = {
        name.removeprefix(root).removeprefix("."): sum(by_operation.values())
        for name, by_operation in counter.get_flop_counts().items()
        if name.split(".")[0] == root
    }
    own: Counter[str] = Counter()
    for name, flops in totals.items():
        own[name] += flops
        if name:
            parent = name
            while (parent := parent.rpartition(".")[0]) and parent not in totals:
                pass  # a list of modules is never called
            own[parent] -= flops
    return {name: flops for name, flops in own.items() if flops}


def flops_by_part(model: nn.Module, context_length: int) -> dict[str, int]:
    """Return the FLOPs of one sequence's forward pass for each of `PARTS`."""
    parts = dict.fromkeys(PARTS, 0)
    for name, flops in flops_by_module(model, context_length).items():
        parts[_part(model, name)] += flops
    return parts


def _part(model: nn.Module, name: str) -> str:
    path = name.split(".")
    for depth in range(1, len(path) + 1):
        module = model.get_submodule(".".join(path[:depth]))
        if isinstance(module, HeadProjections):
            return "scores" if depth == len(path) else "projections"
        if isinstance(module, GLU | MLP | MoE):
            return "ffn"
    return "head"


def least_activations(model: Transformer, context_length: int, checkpointed: bool = False) -> int:
    """Return a lower bound of what one sequence keeps for the backward pass, without logits.

    The results of linear layers; fused attention and compilers save the rest. With checkpointed
    activations: the inputs of all blocks and the results in the smallest block.
    """
    outside, inputs, blocks, _ = _kept(model, context_length, LINEAR, norms=())
    head = model.vocab_size * context_length
    return outside - head + (sum(inputs) + min(blocks) if checkpointed else sum(blocks))


def activations(model: Transformer, context_length: int, checkpointed: bool = False) -> int:
    """Return the elements that one sequence's forward pass and loss save for the backward pass.

    By convention the results of matrix products, norms and softmaxes (the loss has one over the
    logits) are saved, and elementwise operations are computed again. With checkpointed activations:
    the inputs of all blocks, the results in the largest block, and those outside of blocks.
    """
    norms = (RMSNorm, LayerNorm)
    outside, inputs, blocks, logits = _kept(model, context_length, KEPT, norms)
    outside += logits
    return outside + (sum(inputs) + max(blocks) if checkpointed else sum(blocks))


def _kept(
    model: Transformer,
    context_length: int,
    operations: set[Any],
    norms: tuple[type[nn.Module], ...],
) -> tuple[int, list[int], list[int], int]:
    """Return the elements of the results outside of blocks, the blocks' inputs and results,
    and the logits."""
    kept, inputs, blocks = _Kept(operations), list[int](), list[int]()

    def normed(norm: nn.Module, args: Any, out: Tensor) -> None:
        kept.numbers += out.numel()

    def entered(block: nn.Module, args: Any) -> None:
        inputs.append(args[0].numel())
        blocks.append(-kept.numbers)

    def left(block: nn.Module, args: Any, out: Tensor) -> None:
        blocks[-1] += kept.numbers

    hooks = [m.register_forward_hook(normed) for m in model.modules() if isinstance(m, norms)]
    hooks += [block.register_forward_pre_hook(entered) for block in model.blocks]
    hooks += [block.register_forward_hook(left) for block in model.blocks]
    try:
        with kept:
            logits = _run(model, context_length)
    finally:
        for hook in hooks:
            hook.remove()
    return kept.numbers - sum(blocks), inputs, blocks, logits.numel()


class _Kept(TorchDispatchMode):
    """Adds up the sizes of the results of some operations."""

    def __init__(self, operations: set[Any]) -> None:
        super().__init__()
        self.operations = operations
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in self.operations:
            self.numbers += out.numel()
        return out


def _run(model: nn.Module, context_length: int) -> Tensor:
    """Run one sequence in evaluation mode, with eager attention."""
    attentions = [m for m in model.modules() if isinstance(m, SoftmaxAttention)]
    backends = [attention.backend for attention in attentions]
    training = model.training
    device = next(model.parameters()).device
    try:
        model.eval()
        for attention in attentions:
            attention.backend = "eager"
        with torch.no_grad():
            logits: Tensor = model(torch.zeros(1, context_length, dtype=torch.long, device=device))
    finally:
        model.train(training)
        for attention, backend in zip(attentions, backends, strict=True):
            attention.backend = backend
    return logits
