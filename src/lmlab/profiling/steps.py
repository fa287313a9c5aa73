"""A configured model with its loss, optimizer and a batch of random tokens, ready to be timed."""

from dataclasses import dataclass
from typing import Any

import torch

from lmlab.accounting.costs import count_costs
from lmlab.accounting.fit import require_memory
from lmlab.config import RunConfig
from lmlab.model import Transformer, build
from lmlab.model.attention.choice import check_backends
from lmlab.optim import build_optimizer
from lmlab.training.batch import Batch
from lmlab.training.chunking import fastest_chunk
from lmlab.training.device import keep_freed_memory, resolve_device, resolve_precision
from lmlab.training.kernels import check_kernels, check_widths, set_precision, use_kernels
from lmlab.training.objective import NextToken
from lmlab.training.runtime import Runtime
from lmlab.training.step import LossScaler, optimize_step


@dataclass(frozen=True)
class TrainingStep:
    """One training step that can be repeated."""

    model: Transformer
    objective: Any
    """The model with the loss of predicting the next token; compiled when trainer.compile=true."""
    optimizer: torch.optim.Optimizer
    batch: Batch
    runtime: Runtime
    micro_batch_size: int | None
    max_grad_norm: float | None
    scaler: LossScaler | None

    @property
    def tokens(self) -> int:
        """Tokens of the batch."""
        inputs = self.batch[0]
        assert inputs is not None
        return inputs.numel()

    def __call__(self) -> None:
        """Take the step."""
        optimize_step(
            self.objective,
            self.optimizer,
            self.batch,
            self.tokens,
            self.runtime,
            micro_batch_size=self.micro_batch_size,
            max_grad_norm=self.max_grad_norm,
            scaler=self.scaler,
        )

    def state_bytes(self) -> dict[str, int]:
        """Return the bytes that stay between steps: weights and optimizer state."""
        state = [v for values in self.optimizer.state.values() for v in values.values()]
        return {
            "weights": sum(p.nbytes for p in self.model.parameters()),
            "optimizer state": sum(v.nbytes for v in state if isinstance(v, torch.Tensor)),
        }


def require_fit(config: RunConfig, vocab_size: int) -> None:
    """Raise NotEnoughMemory when a training step certainly needs more memory than is available."""
    trainer = config.trainer
    device = resolve_device(trainer.device)
    precision = resolve_precision(trainer.precision, device)
    checkpointed = trainer.checkpoint_activations
    costs = count_costs(config.model, config.optimizer, vocab_size, precision, checkpointed)
    require_memory(
        costs,
        device,
        batch_size=trainer.batch_size,
        micro_batch_size=trainer.micro_batch_size,
        chunk_tokens=_chunk_tokens(config, device),
        steps=2,
    )


def _chunk_tokens(config: RunConfig, device: torch.device) -> int | None:
    chunk = config.next_token_objective().chunk_tokens
    return fastest_chunk(device) if chunk == "auto" else chunk


def check_step(config: RunConfig, vocab_size: int) -> tuple[torch.device, str]:
    """Return the device and the precision of a training step.

    Raises ConfigError when the device is not there, or lacks what a backend, a kernel or the
    precision needs, and for a task or a vocabulary that cannot be trained on such tokens.
    """
    trainer = config.trainer
    device = resolve_device(trainer.device)
    precision = resolve_precision(trainer.precision, device)
    check_backends(config.model, device, precision)
    check_kernels(trainer.kernels, device)
    check_widths(config.model, precision)
    config.next_token_objective()
    build(config.model, vocab_size, device="meta")
    return device, precision


def training_step(config: RunConfig, vocab_size: int) -> TrainingStep:
    """Return the step of a configuration, on random tokens; it is compiled only when that says so.

    Raises ConfigError as `check_step`.
    """
    trainer = config.trainer
    device, precision = check_step(config, vocab_size)
    if trainer.num_threads is not None:
        torch.set_num_threads(trainer.num_threads)
    torch.backends.cuda.matmul.allow_tf32 = True
    keep_freed_memory()
    torch.manual_seed(config.seed)
    model = build(config.model, vocab_size).to(device)
    model.checkpoint_activations = trainer.checkpoint_activations
    set_precision(model, precision)
    terms = config.next_token_objective()
    objective: Any = NextToken(
        model,
        z_loss=terms.z_loss,
        label_smoothing=terms.label_smoothing,
        chunk_tokens=_chunk_tokens(config, device),
    )
    use_kernels(objective, trainer.kernels, device)
    if trainer.compile is True:
        objective = torch.compile(objective)
    shape = (trainer.batch_size, config.model.context_length + 1)
    ids = torch.randint(vocab_size, shape, device=device)
    return TrainingStep(
        model,
        objective,
        build_optimizer(config.optimizer, model, width_multiplier=config.model.width_multiplier),
        (ids[:, :-1].contiguous(), ids[:, 1:].contiguous()),
        Runtime(device, precision, config.seed),
        trainer.micro_batch_size,
        trainer.max_grad_norm,
        LossScaler() if precision == "fp16" else None,
    )
