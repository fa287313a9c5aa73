"""Configurations as the project ships them, changed where a test needs it."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from lmlab.data.config import TextConfig
from lmlab.tokenizer.config import BPEConfig, ByteConfig

# A busy machine is no failure.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

END = "<|endoftext|>"


@pytest.fixture
def byte() -> ByteConfig:
    return ByteConfig(kind="byte", special_tokens=(END,))


@pytest.fixture
def bpe() -> BPEConfig:
    return BPEConfig(kind="bpe", vocab_size=300, pattern="gpt2", special_tokens=(END,))


@pytest.fixture
def text(tmp_path: Path) -> Callable[..., TextConfig]:
    """A corpus of the given documents in one file; the cache lies in tmp_path/cache."""

    def text(documents: list[str], name: str = "corpus.txt", **changes: Any) -> TextConfig:
        path = tmp_path / name
        if not path.exists() or path.read_text() != "|".join(documents):
            path.write_text("|".join(documents))
        settings = {
            "kind": "text",
            "cache_dir": str(tmp_path / "cache"),
            "paths": [str(path)],
            "validation_paths": None,
            "validation_fraction": 0.2,
            "separator": "|",
            "format": None,
            "jsonl_field": "text",
        }
        return TextConfig(**{**settings, **changes})

    return text


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system takes root")
    yield path
    # Lazily: shards may still be mapped.
    subprocess.run(["umount", "--lazy", str(path)], check=True)
