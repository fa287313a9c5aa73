"""Parameters, FLOPs and memory of a configured model, before anything runs."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from lmlab.accounting.count import activations, count_parameters, flops_by_part, least_activations
from lmlab.accounting.tree import tree
from lmlab.model import build
from lmlab.model.config import ModelConfig
from lmlab.optim import build_optimizer
from lmlab.optim.config import OptimizerConfig

FLOAT32 = 4


@dataclass(frozen=True)
class Costs:
    """Counts of one model; memory in bytes, FLOPs of one sequence of `context_length` tokens."""

    parameters: int
    vocab_size: int
    context_length: int
    forward_flops: dict[str, int]
    """By part: projections, scores, ffn, head."""
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    """Of one sequence."""
    least_activation_bytes: int
    """Lower bound of the activations of one sequence, without logits."""
    logit_bytes_per_token: int
    """Logits of one token, in the precision of the activations."""
    cache_bytes: int
    """Of one sequence of `context_length` tokens."""
    cache_bytes_per_token: float
    """Mean over the tokens; caches of bounded size grow by less for later tokens."""
    tree: str

    @property
    def flops(self) -> int:
        """FLOPs of one sequence's forward pass."""
        return sum(self.forward_flops.values())

    @property
    def flops_per_token(self) -> float:
        """FLOPs of training on one token: three forward passes."""
        return 3 * self.flops / self.context_length

    @property
    def fixed_bytes(self) -> int:
        """Bytes that do not depend on the batch."""
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes

    def largest_batch(self, memory: float) -> int:
        """Return the largest micro-batch in `memory` bytes; 0: none fits."""
        return max(0, int((memory - self.fixed_bytes) // self.activation_bytes))

    def training_seconds(self, tokens: float, peak: float, mfu: float) -> float:
        """Return the seconds of training on `tokens` at a fraction `mfu` of `peak` FLOP/s."""
        return tokens * self.flops_per_token / (peak * mfu)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"total_forward_flops": self.flops, "fixed_bytes": self.fixed_bytes}


def count_costs(
    config: ModelConfig,
    optimizer: OptimizerConfig,
    vocab_size: int,
    precision: str = "fp32",
    checkpoint_activations: bool = False,
) -> Costs:
    """Return the counts of a configured model: activations in `precision`, all else in float32.

    The cache is float32 too: text is generated without autocast.
    """
    model = build(config, vocab_size, device="meta")
    length = config.context_length
    parameters = count_parameters(model)
    bytes_each = FLOAT32 if precision in ("fp32", "tf32") else 2  # tf32 rounds in the product alone
    cache = model.cache_elements(length) * FLOAT32
    return Costs(
        parameters=parameters,
        vocab_size=model.vocab_size,
        context_length=length,
        forward_flops=flops_by_part(model, length),
        weight_bytes=parameters * FLOAT32,
        gradient_bytes=parameters * FLOAT32,
        optimizer_bytes=_state_elements(build_optimizer(optimizer, model)) * FLOAT32,
        activation_bytes=activations(model, length, checkpoint_activations) * bytes_each,
        least_activation_bytes=least_activations(model, length, checkpoint_activations)
        * bytes_each,
        logit_bytes_per_token=model.vocab_size * bytes_each,
        cache_bytes=cache,
        cache_bytes_per_token=cache / length,
        tree=tree(model, length),
    )


def _state_elements(optimizer: Optimizer) -> int:
    """Return the number of elements in the optimizer state, from a step on the meta device."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return sum(
        value.numel()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.ndim
    )
