"""Configuration that the tasks of alignment share; nothing heavy is imported here."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from lmlab.schema import Config

PolicyLossKind = Literal["no_baseline", "reinforce_with_baseline", "grpo_clip", "no_clip"]
"""Policy-gradient losses, see `lmlab.alignment.losses`."""
Normalization = Literal["token", "sequence", "constant"]
"""How losses of tokens become the loss of a batch, see `lmlab.alignment.masks.sequence_sums`."""
PreferenceLossKind = Literal["dpo", "ipo"]
"""Losses of pairs, see `lmlab.alignment.preference`."""
TooLong = Literal["error", "truncate", "drop"]


class ExamplesConfig(Config):
    """Your own examples: JSON lines, also as .gz or .zst."""

    paths: Annotated[list[str], Field(min_length=1)]
    """Files, folders or patterns (`**` descends)."""
    validation_paths: list[str] | None
    """Files, folders or patterns held out for validation, and left out of training; null:
    validation_fraction is held out."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)]
    """Share of the rows held out without validation_paths, chosen by a hash; rows with one prompt
    stay together."""
    rename: dict[str, str]
    """Column of the files: name it should have; +task.examples.rename.question=prompt."""
    prompt_template: str
    """Text around a prompt that is text; {prompt} is replaced by it."""
    too_long: TooLong
    """What is done with an example longer than the context: error, truncate it at its end, or drop
    it."""

    @field_validator("paths", "validation_paths", mode="before")
    @classmethod
    def _one_path(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("prompt_template")
    @classmethod
    def _has_a_place_for_the_prompt(cls, value: str) -> str:
        if "{prompt}" not in value:
            raise ValueError("prompt_template lacks {prompt}, which each prompt replaces")
        return value
