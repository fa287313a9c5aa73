"""Configuration of the task: what a model is trained for."""

from typing import Annotated, Literal

from pydantic import Field

from lmlab.schema import Config


class SampleConfig(Config):
    """Text generated at evaluation points."""

    prompt: str | None
    """Text to continue; null: a new document."""
    tokens: Annotated[int, Field(ge=0)]
    """Tokens to generate; 0: no samples."""
    temperature: Annotated[float, Field(ge=0)]
    """Sampling temperature; 0: the likeliest token."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    """Sample from the smallest set of tokens with this probability."""


class ObjectiveConfig(Config):
    """The training loss: cross-entropy, and terms added to it."""

    z_loss: Annotated[float, Field(ge=0)]
    """Weight of the mean squared logarithm of the softmax's normaliser (PaLM: 1e-4); 0: off."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    """Share of the target spread evenly over all tokens; logged losses are without it."""
    chunk_tokens: Literal["auto"] | Annotated[int, Field(ge=1)] | None
    """Tokens whose logits are in memory at a time; null: a whole micro-batch; auto: 1024 on the
    CPU, where that is also faster, else null."""


class PretrainConfig(Config):
    """Predict the next token of a corpus."""

    kind: Literal["pretrain"]
    objective: ObjectiveConfig
    sample: SampleConfig


TaskConfig = Annotated[PretrainConfig, Field()]
