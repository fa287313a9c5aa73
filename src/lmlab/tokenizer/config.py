"""The tokenizer's configuration: one class for each kind; nothing heavy is imported here."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, HttpUrl

from lmlab.schema import Config
from lmlab.tokenizer.limits import MAX_IDS

SpecialTokens = tuple[Annotated[str, Field(min_length=1)], ...]


class BPEConfig(Config):
    """Byte-level BPE trained on the training text (Sennrich et al. 2016, arXiv:1508.07909)."""

    kind: Literal["bpe"]
    vocab_size: Annotated[int, Field(ge=256, le=MAX_IDS)]
    """Bytes, merges and special tokens together; fewer when the text has no pair left to merge."""
    pattern: Annotated[str, Field(min_length=1)]
    """What merges may not cross: gpt2, cl100k, o200k, or a pattern of the `regex` package."""
    special_tokens: SpecialTokens
    """Strings that get one id each and stay whole in prompts; in a corpus they are text, where only
    <|endoftext|> stands, after each document."""


class ByteConfig(Config):
    """The 256 bytes and the special tokens: nothing is learnt, a token is a byte."""

    kind: Literal["byte"]
    special_tokens: SpecialTokens
    """Strings that get one id each and stay whole in prompts; in a corpus they are text, where only
    <|endoftext|> stands, after each document."""


class GPT2Config(Config):
    """A finished vocabulary in GPT-2's two files, downloaded once when they are not there."""

    kind: Literal["gpt2"]
    vocab_file: Path
    """vocab.json: token to id, in the printable byte alphabet."""
    merges_file: Path
    """merges.txt: one merge a line, in the order of creation."""
    vocab_url: HttpUrl | None
    """Where vocab_file is downloaded from when it does not exist."""
    merges_url: HttpUrl | None
    """Where merges_file is downloaded from when it does not exist."""
    vocab_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    """What a downloaded vocab_file must be, to the bit; null leaves it unchecked."""
    merges_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    """What a downloaded merges_file must be, to the bit; null leaves it unchecked."""
    pattern: Annotated[str, Field(min_length=1)]
    """What merges may not cross: gpt2, cl100k, o200k, or a pattern of the `regex` package."""
    special_tokens: SpecialTokens
    """Strings that get one id each and stay whole in prompts, not in a corpus; those missing from
    the vocabulary are appended to it."""


class SavedTokenizerConfig(Config):
    """A tokenizer that `Tokenizer.save` wrote, or that a run keeps in RUN/tokenizer."""

    kind: Literal["saved"]
    path: Path
    """Its folder."""


TokenizerConfig = Annotated[
    BPEConfig | ByteConfig | GPT2Config | SavedTokenizerConfig, Field(discriminator="kind")
]
