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


class PretrainConfig(Config):
    """Predict the next token of a corpus."""

    kind: Literal["pretrain"]
    sample: SampleConfig


TaskConfig = Annotated[PretrainConfig, Field()]
