"""Models of milliseconds: with several threads, more time would go into waiting than into work."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from export_shapes import trained_tokenizer

from lmlab.tokenizer import Tokenizer


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A byte-level BPE tokenizer of 300 tokens."""
    return trained_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where an export goes."""
    return tmp_path / "out"
