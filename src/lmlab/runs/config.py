"""Configuration of where metrics go beside the run directory."""

from typing import Annotated, Literal

from pydantic import Field

from lmlab.schema import Config


class NoLoggerConfig(Config):
    """The run directory only."""

    kind: Literal["none"]


class WandbConfig(Config):
    """Weights & Biases too: offline when nobody is logged in."""

    kind: Literal["wandb"]
    project: str
    """Project that runs are filed under."""
    entity: str | None
    """Team or user; null: the account's default."""
    mode: Literal["online", "offline"] | None
    """null: $WANDB_MODE, else online when there is a login and offline when not."""


LoggerConfig = Annotated[NoLoggerConfig | WandbConfig, Field(discriminator="kind")]
