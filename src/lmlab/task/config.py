"""Configuration of what is trained for."""

from typing import Annotated, Literal

from pydantic import Field

from lmlab.schema import Config


class SampleConfig(Config):
    """Text generated at evaluation points."""

    prompt: str | None
    """Text to continue; null: begin a new document."""
    tokens: Annotated[int, Field(ge=0)]
    """Tokens to generate; 0: no samples."""
    temperature: Annotated[float, Field(ge=0)]
    """0 takes the likeliest token."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    """Sample from the smallest set of tokens with this probability."""


class ObjectiveConfig(Config):
    """What is minimised: cross-entropy, and what is added to it."""

    z_loss: Annotated[float, Field(ge=0)]
    """Weight of the mean squared logarithm of the softmax's normaliser (PaLM: 1e-4); 0: off."""


class PretrainConfig(Config):
    """Predict the next token of a corpus."""

    kind: Literal["pretrain"]
    objective: ObjectiveConfig
    sample: SampleConfig


TaskConfig = Annotated[PretrainConfig, Field()]
