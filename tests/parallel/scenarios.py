"""Training steps in one process or several, with everything that strategies must agree on."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from lmlab.config import RunConfig
from lmlab.model import build
from lmlab.optim import build_optimizer
from lmlab.optim.shards import gathered
from lmlab.parallel import build_strategy, model_parallel_size
from lmlab.parallel.config import ParallelConfig
from lmlab.training.distributed import SINGLE_PROCESS, DistributedContext
from lmlab.training.objective import NextToken
from lmlab.training.runtime import Runtime
from lmlab.training.step import LossScaler, optimize_step
from tests_support import composed

CPU = torch.device("cpu")
VOCAB, TIME, BATCH, STEPS = 61, 16, 8, 4
SMALL = (
    *("tokenizer=byte", "model.d_model=32", "model.num_layers=2", "model.num_heads=4"),
    *("model.d_ff=64", f"model.context_length={TIME}"),
)
SGD = ("optimizer=sgd", "optimizer.lr=0.1")
ADAMW = ("optimizer=adamw", "optimizer.lr=0.01")


@dataclass(frozen=True)
class Scenario:
    """A short training run."""

    overrides: tuple[str, ...] = SGD
    clip: float | None = None
    micro: int | None = None
    precision: str = "fp32"
    frozen: str = "no parameter"
    """Parameters with this in their name are not trained."""
    compiled: bool = False
    recomputed: bool = False
    """Activations are recomputed in the backward pass."""
    tolerance: float = 1e-6


@dataclass
class Outcome:
    """What a scenario gave in one process."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    """The share of the tokens of each expert in each step."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """Whole, also where they are sharded."""
    held: dict[str, Tensor] = field(default_factory=dict)
    """The weights that are the same in all processes, as they lie in memory."""


def configured(scenario: Scenario) -> RunConfig:
    return composed(*SMALL, *scenario.overrides)


def trained(
    context: DistributedContext, scenario: Scenario, config: RunConfig, parallel: ParallelConfig
) -> Outcome:
    """Train as `train_task` does, without a run directory."""
    group = model_parallel_size(parallel, context.size)
    context = replace(context, model_parallel=group)
    strategy = build_strategy(parallel, context.size, CPU, scenario.precision)
    runtime = Runtime(CPU, scenario.precision, 0, context, strategy)
    torch.manual_seed(0)
    model = build(config.model, VOCAB, device="meta" if strategy.sharded else None)
    strategy.check(model)
    model.checkpoint_activations = scenario.recomputed
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(scenario.frozen not in name)
    objective = NextToken(model, chunk_tokens=24, z_loss=1e-3)
    wrapped: Any = strategy.wrap(objective, model)
    if scenario.compiled:
        wrapped = torch.compile(wrapped, backend="aot_eager")
    optimizer = build_optimizer(config.optimizer, model, strategy.optimizer)
    scaler = LossScaler(scale=2.0**8) if scenario.precision == "fp16" else None
    outcome = Outcome()
    for step in range(STEPS):
        ids = torch.randint(VOCAB, (BATCH, TIME + 1), generator=torch.manual_seed(step))
        mine = ids.chunk(context.data_size)[context.data_rank]
        stats = optimize_step(
            wrapped,
            optimizer,
            (mine[:, :-1], mine[:, 1:]),
            BATCH * TIME,
            runtime,
            micro_batch_size=scenario.micro,
            max_grad_norm=scenario.clip,
            scaler=scaler,
        )
        outcome.losses.append(context.sum(stats.terms["loss"].item())[0])
        outcome.norms.append(stats.grad_norm.item())
        shares = [v.item() for k, v in model.take_metrics().items() if "expert_" in k]
        outcome.loads += (
            [total / context.data_size for total in context.sum(*shares)] if shares else []
        )
    for name, tensor in model.state_dict().items():
        part = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        outcome.weights[name] = gathered(part, tensor).clone()
        if not hasattr(tensor, "to_local"):
            outcome.held[name] = tensor.clone()
    return outcome


def alone(scenario: Scenario, config: RunConfig) -> Outcome:
    return trained(SINGLE_PROCESS, scenario, config, config.parallel)
