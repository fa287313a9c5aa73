"""Configuration of the corpora a model can be trained on."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from lmlab.schema import Config

Fraction = Annotated[float, Field(gt=0, lt=1)]


class _Cached(Config):
    NOT_IDENTITY = frozenset({"cache_dir"})
    cache_dir: str | None
    """Where downloads and prepared data lie; null: the directory $LMLAB_DATA, or else data/."""


class StdlibConfig(_Cached):
    """The source files of the running Python's standard library: real text, on every machine."""

    kind: Literal["stdlib"]
    validation_fraction: Fraction
    """Share of the documents (chosen by a hash of their text) held out for validation."""


class TextConfig(_Cached):
    """Your own files: plain text (.txt, .md, ...) or .jsonl, also packed as .gz or .zst."""

    kind: Literal["text"]
    paths: list[str]
    """Files or globs (`**` descends); files are read in sorted order, each once."""
    validation_paths: list[str] | None
    """Files or globs held out for validation; null: validation_fraction of the documents is."""
    validation_fraction: Fraction
    """Share of the documents (chosen by a hash of their text) held out without validation_paths."""
    separator: Annotated[str, Field(min_length=1)] | None
    r"""What stands between two documents of a plain text file (`\n` and `\t` are understood);
    null: each file is one document."""
    jsonl_field: str
    """The field of each line of a .jsonl file that holds the document."""

    @field_validator("paths", "validation_paths", mode="before")
    @classmethod
    def _one_path(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("separator", mode="after")
    @classmethod
    def _escapes(cls, value: str | None) -> str | None:
        # A command line cannot easily carry a real newline.
        return value and value.replace(r"\n", "\n").replace(r"\t", "\t")


class RemoteFile(Config):
    """A file on the web."""

    url: str
    """Where it is."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    """What its bytes must hash to; null: not checked."""


class _Downloaded(_Cached):
    train: RemoteFile
    """The training text, plain or packed as .gz or .zst."""
    validation: RemoteFile
    """The validation text; training documents that also stand here are left out."""
    separator: Annotated[str, Field(min_length=1)]
    """What stands between two documents."""
    license: str
    """Shown before the first download."""


class TinyStoriesConfig(_Downloaded):
    """TinyStories, version 2: short stories by GPT-4 (Eldan and Li, 2023, arXiv:2305.07759)."""

    kind: Literal["tinystories"]


class OpenWebTextConfig(_Downloaded):
    """A sample of OpenWebText: web pages linked to from Reddit (Gokaslan and Cohen, 2019)."""

    kind: Literal["openwebtext"]


DataConfig = Annotated[
    StdlibConfig | TextConfig | TinyStoriesConfig | OpenWebTextConfig, Field(discriminator="kind")
]
