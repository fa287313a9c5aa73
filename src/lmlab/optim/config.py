"""Configuration of optimizers and learning-rate schedules."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lmlab.schema import Config

LearningRate = Annotated[float, Field(gt=0, le=1e30)]
"""Optimizers scale it a hundredfold in float32, whose largest number is 3.4e38."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0)]
Warmup = Annotated[float, Field(ge=0)]


class AdamWConfig(Config):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    kind: Literal["adamw"]
    lr: LearningRate
    """Peak learning rate."""
    beta1: Annotated[float, Field(ge=0, lt=1)]
    """Decay of the first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)]
    """Decay of the second moment."""
    eps: Annotated[float, Field(gt=0)]
    """Added to the root of the second moment."""
    weight_decay: Decay
    """Decoupled decay of weights."""
    decay_embeddings: bool
    """Decay embeddings too; norms and biases are never decayed."""
    backend: Literal["auto", "foreach", "fused"]
    """foreach: the definition; fused: torch's kernel; auto: fused on CPU and CUDA."""


class MuonConfig(Config):
    """Muon on hidden matrices, AdamW on all other parameters (Jordan et al. 2024)."""

    kind: Literal["muon"]
    lr: LearningRate
    """Peak learning rate of Muon and AdamW; Muon's updates are scaled to the size of AdamW's."""
    momentum: Annotated[float, Field(ge=0, lt=1)]
    """Nesterov momentum of Muon."""
    newton_schulz_steps: Annotated[int, Field(ge=1)]
    """Newton-Schulz iterations that orthogonalize an update; fewer are faster and less exact."""
    beta1: Annotated[float, Field(ge=0, lt=1)]
    """Decay of AdamW's first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)]
    """Decay of AdamW's second moment."""
    eps: Annotated[float, Field(gt=0)]
    """Added to the root of AdamW's second moment."""
    weight_decay: Decay
    """Decoupled decay of weights."""
    decay_embeddings: bool
    """Decay embeddings too; norms and biases are never decayed."""


class SGDConfig(Config):
    """Stochastic gradient descent with optional Nesterov momentum."""

    kind: Literal["sgd"]
    lr: LearningRate
    """Peak learning rate."""
    momentum: Annotated[float, Field(ge=0, lt=1)]
    """Momentum; 0: plain SGD."""
    nesterov: bool
    """Use Nesterov momentum; needs momentum > 0."""
    weight_decay: Decay
    """Decoupled decay of weights."""
    decay_embeddings: bool
    """Decay embeddings too; norms and biases are never decayed."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov=true needs momentum > 0, got 0; set optimizer.momentum=0.9")
        return self


OptimizerConfig = Annotated[AdamWConfig | MuonConfig | SGDConfig, Field(discriminator="kind")]


class ConstantConfig(Config):
    """The same learning rate at every step, after a linear warmup."""

    kind: Literal["constant"]
    warmup: Warmup
    """Steps of linear warmup; below 1, the fraction of all steps."""


class CosineConfig(Config):
    """Linear warmup, then cosine decay to the minimum (Loshchilov and Hutter 2017)."""

    kind: Literal["cosine"]
    warmup: Warmup
    """Steps of linear warmup; below 1, the fraction of all steps."""
    end: Annotated[float, Field(gt=0)]
    """Step at which the minimum is reached; up to 1, the fraction of all steps."""
    min_ratio: Fraction
    """Minimum as a fraction of the peak."""


class LinearConfig(Config):
    """Linear warmup, then linear decay to the minimum."""

    kind: Literal["linear"]
    warmup: Warmup
    """Steps of linear warmup; below 1, the fraction of all steps."""
    end: Annotated[float, Field(gt=0)]
    """Step at which the minimum is reached; up to 1, the fraction of all steps."""
    min_ratio: Fraction
    """Minimum as a fraction of the peak."""


class InverseSqrtConfig(Config):
    """Linear warmup, then `peak * sqrt(warmup / step)`, or without one `peak / sqrt(step + 1)`
    (Vaswani et al. 2017)."""

    kind: Literal["inverse_sqrt"]
    warmup: Warmup
    """Steps of linear warmup; below 1, the fraction of all steps."""


class WSDConfig(Config):
    """Warmup, constant rate, linear decay at the end (WSD; Hu et al. 2024)."""

    kind: Literal["wsd"]
    warmup: Warmup
    """Steps of linear warmup; below 1, the fraction of all steps."""
    decay: Annotated[float, Field(ge=0)]
    """Steps of decay at the end; up to 1, the fraction of all steps."""
    min_ratio: Fraction
    """Minimum as a fraction of the peak."""


ScheduleConfig = Annotated[
    ConstantConfig | LinearConfig | CosineConfig | InverseSqrtConfig | WSDConfig,
    Field(discriminator="kind"),
]
