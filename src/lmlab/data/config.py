"""Configuration of the corpora a model can be trained on."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from lmlab.data.separator import decode_separator
from lmlab.schema import Config

Fraction = Annotated[float, Field(gt=0, lt=1)]


def _check_separator(written: str) -> str:
    decode_separator(written)
    return written  # as written: a stored configuration must mean the same when it is read again


Separator = Annotated[str, Field(min_length=1), AfterValidator(_check_separator)]


class _Cached(Config):
    NOT_IDENTITY = frozenset({"cache_dir"})
    cache_dir: str | None
    """Directory of downloads and prepared data; null: $LMLAB_DATA, or data/ without it."""


class StdlibConfig(_Cached):
    """The source files of the running Python's standard library: real text on every machine."""

    kind: Literal["stdlib"]
    validation_fraction: Fraction
    """Share of the documents (chosen by a hash of their text) held out for validation."""


class TextConfig(_Cached):
    """Your own files: plain text, JSON lines, both also as .gz or .zst, or Parquet."""

    kind: Literal["text"]
    paths: list[str]
    """Files, folders or patterns (`**` descends). Of a folder, every text file below it is read;
    hidden files are left out, and links to folders inside it are not followed. Files are read in
    sorted order, each once."""
    validation_paths: list[str] | None
    """Files, folders or patterns held out for validation; null: validation_fraction is held out."""
    validation_fraction: Fraction
    """Share of the text held out without validation_paths: documents chosen by a hash of their
    text. Of a long document (over 1,000 bytes, and fewer than five of its length would fill the
    share), the last part is held out instead, cut at a line end: of one file of text, its last
    validation_fraction."""
    format: Literal["text", "jsonl"] | None
    """How files are read: `text` as they are, `jsonl` as one JSON object a line; null: by name
    (.jsonl, .ndjson, .jl) and content, also Parquet."""
    separator: Separator | None
    r"""What stands between two documents of a plain text file; null: each file is one document.
    Escapes: \n, \r, \t, \f, \\, \xHH, \uHHHH (so \r\n\r\n, and \x5cnewpage for \newpage). An
    unknown escape, or one with a letter after it (\newpage), is refused."""
    jsonl_field: str
    """The field of each JSON object, or the column of Parquet files, that holds the document."""

    @field_validator("paths", "validation_paths", mode="before")
    @classmethod
    def _one_path(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class RemoteFile(Config):
    """A file on the web."""

    url: str
    """Its address."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    """Expected hash of its bytes; null: not checked."""


class _Downloaded(_Cached):
    train: RemoteFile
    """The training text: plain text or JSON lines, also compressed by gzip or zstd."""
    validation: RemoteFile
    """The validation text; documents that are also here are left out of the training text."""
    separator: Separator
    """What stands between two documents; escapes as for data=text."""
    license: str
    """Printed before the first download."""


class TinyStoriesConfig(_Downloaded):
    """TinyStories, version 2: short stories by GPT-4 (Eldan and Li, 2023, arXiv:2305.07759)."""

    kind: Literal["tinystories"]


class OpenWebTextConfig(_Downloaded):
    """A sample of OpenWebText: web pages linked to from Reddit (Gokaslan and Cohen, 2019)."""

    kind: Literal["openwebtext"]


class CleanedConfig(_Cached):
    """The result of `python clean.py`."""

    kind: Literal["cleaned"]
    path: str
    """Its output directory."""
    validation_fraction: Fraction
    """Share of the documents (chosen by a hash of their text) held out for validation."""


DataConfig = Annotated[
    StdlibConfig | TextConfig | CleanedConfig | TinyStoriesConfig | OpenWebTextConfig,
    Field(discriminator="kind"),
]
