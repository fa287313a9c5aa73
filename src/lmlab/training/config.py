"""Configuration of the training loop and of its length."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from lmlab.schema import Config

Count = Annotated[int, Field(ge=1)]


def check_device(name: str) -> str:
    """Return the name of a device; raises ValueError for one that torch cannot have."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,2})?", name):
        raise ValueError(f"'{name}' is not auto, cpu, mps, cuda or cuda:N")
    return name


class StepsConfig(Config):
    """Train for a number of optimizer steps."""

    kind: Literal["steps"]
    steps: Count
    """Optimizer steps."""


class TokensConfig(Config):
    """Train on a number of tokens."""

    kind: Literal["tokens"]
    tokens: Count
    """Training tokens; rounded down to whole steps, at least one."""


class FlopsConfig(Config):
    """Train with a number of floating-point operations, forward and backward passes together."""

    kind: Literal["flops"]
    flops: Annotated[float, Field(gt=0)]
    """Floating-point operations of all steps; rounded down to whole steps, at least one."""


class TokensPerParameterConfig(Config):
    """Train on tokens in proportion to the model's parameters (20: Hoffmann et al. 2022)."""

    kind: Literal["tokens_per_parameter"]
    tokens_per_parameter: Annotated[float, Field(gt=0)]
    """Tokens for each parameter of the model."""


BudgetConfig = Annotated[
    StepsConfig | TokensConfig | FlopsConfig | TokensPerParameterConfig,
    Field(discriminator="kind"),
]


class TrainerConfig(Config):
    """The training loop: batch, precision, evaluation, checkpoints."""

    NOT_IDENTITY = frozenset(
        {
            *("micro_batch_size", "checkpoint_activations", "compile", "device", "num_threads"),
            "kernels",
            *("log_every", "checkpoint_every", "keep_checkpoints"),
            *("watch_norms", "profile_steps", "detect_anomaly", "check_memory"),
        }
    )

    batch_size: Count
    """Sequences in one optimizer step."""
    micro_batch_size: Count | None
    """Sequences in one forward pass, with gradient accumulation; null: the whole batch."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None
    """Clip the global L2 norm of the gradients to this value; null: do not clip."""
    max_loss_rise: Annotated[float, Field(gt=0)] | None
    """A run has diverged when its training loss stays this many nats above its lowest value;
    null, and with tasks that generate: only when it is not finite."""
    divergence_patience: Count
    """Consecutive rows of training metrics for which max_loss_rise must be exceeded."""
    eval_every: Count
    """Steps between evaluations; the last step is always evaluated."""
    eval_windows: Count | None
    """Windows of the held-out split in an evaluation of task=pretrain, the same in every run; null:
    all."""
    checkpoint_every: Count
    """Steps between checkpoints; the last step is always saved."""
    keep_checkpoints: Count
    """Newest checkpoints to keep."""
    log_every: Count
    """Steps between rows of training metrics."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "fp8", "mxfp8"]
    """Precision of matrix products; weights stay float32. auto: bf16 where the device is faster
    at it. fp16 scales the loss, so that small gradients do not underflow. fp8: bf16, but
    linear layers of the blocks in float8 with a scale for each tensor; mxfp8: for each 32 numbers,
    emulated."""
    kernels: Literal["auto", "torch", "triton"]
    """Cross-entropy and RMSNorm: torch, or fused kernels in Triton; auto: Triton where `lmlab
    kernels measure` found it faster on this device."""
    checkpoint_activations: bool
    """Keep only each block's input and recompute the rest in the backward pass: less memory, more
    time."""
    compile: Literal["auto", True, False]
    """torch.compile; auto: on CUDA only."""
    device: str
    """auto, cpu, cuda, cuda:N or mps."""
    check_memory: bool
    """Refuse a run that certainly needs more memory than the device or the CPU has available."""
    num_threads: Annotated[int, Field(ge=1, le=1024)] | None
    """CPU threads of torch; null: torch's own choice."""
    watch_norms: bool
    """Log norms of each layer's weights, gradients and activations."""
    profile_steps: Count | None
    """Steps that torch's profiler records, from the fourth on; null: none."""
    fixed_batch: bool
    """Train on the batch of step 0 at every step: a model that can learn overfits it."""
    detect_anomaly: bool
    """Stop at the operation that produced a NaN; slow."""

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        return check_device(device)

    @model_validator(mode="after")
    def _micro_batches_divide(self) -> Self:
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size={self.micro_batch_size} does not divide "
                f"batch_size={self.batch_size}"
            )
        return self
