"""From a configuration to a tokenizer."""

from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any, assert_never

from lmlab.io.download import Remote
from lmlab.tokenizer.bpe import Tokenizer, byte_tokenizer
from lmlab.tokenizer.config import (
    BPEConfig,
    ByteConfig,
    GPT2Config,
    SavedTokenizerConfig,
    TokenizerConfig,
)
from lmlab.tokenizer.download import digest, fetch
from lmlab.tokenizer.train import train_bpe


def build(
    config: TokenizerConfig,
    documents: Callable[[], Iterable[bytes]],
    progress: bool = False,
) -> Tokenizer:
    """Train, make or load the tokenizer that `config` describes.

    `documents` is called only when there is something to learn. Each document is a text of its own;
    a special token that it mentions is ordinary text there.
    """
    if isinstance(config, BPEConfig):
        vocab, merges = train_bpe(
            iter(documents()),
            config.vocab_size,
            config.special_tokens,
            pattern=config.pattern,
            documents=True,
            progress=progress,
        )
        return Tokenizer(vocab, merges, config.special_tokens, config.pattern)
    if isinstance(config, ByteConfig):
        return byte_tokenizer(config.special_tokens)
    if isinstance(config, GPT2Config):
        for source in _sources(config):
            fetch(*source, progress=progress)
        return Tokenizer.from_files(
            config.vocab_file, config.merges_file, config.special_tokens, config.pattern
        )
    if isinstance(config, SavedTokenizerConfig):
        return Tokenizer.load(config.path)
    assert_never(config)


def identify(config: TokenizerConfig, progress: bool = False) -> dict[str, Any]:
    """What the tokenizer depends on beside its training text, as JSON: files by their content.

    The same before and after a download: files without a known hash are downloaded for it.
    """
    if isinstance(config, SavedTokenizerConfig):
        Tokenizer.load(config.path)  # which explains a folder that is not one
        content = blake2b(digest_size=16)
        for path in sorted(config.path.iterdir()):
            content.update(path.name.encode() + b"\0" + path.read_bytes())
        return {"kind": config.kind, "content": content.hexdigest()}
    if not isinstance(config, GPT2Config):
        return config.model_dump(mode="json")
    origin = {"vocab_file", "vocab_url", "vocab_sha256"}
    origin |= {"merges_file", "merges_url", "merges_sha256"}
    return {
        **config.model_dump(mode="json", exclude=origin),
        "files": [digest(*source, progress=progress) for source in _sources(config)],
    }


def _sources(config: GPT2Config) -> list[tuple[Path, Remote | None]]:
    """Path and origin of each file."""
    return [
        (path, None if url is None else Remote(str(url), sha256, f"{key}_url", f"{key}_sha256"))
        for key, path, url, sha256 in (
            ("tokenizer.vocab", config.vocab_file, config.vocab_url, config.vocab_sha256),
            ("tokenizer.merges", config.merges_file, config.merges_url, config.merges_sha256),
        )
    ]
