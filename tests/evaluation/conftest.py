"""Runs with random weights, on the disk and in memory."""

from functools import partial
from pathlib import Path

import pytest
from random_runs import MakeRun, random_run

from lmlab.loading import TrainedRun
from lmlab.tokenizer import Tokenizer, train_bpe


@pytest.fixture(scope="session")
def bpe(corpus: Path) -> Tokenizer:
    """A tokenizer with merges."""
    vocab, merges = train_bpe(corpus, 300, ["<|endoftext|>"])
    return Tokenizer(vocab, merges, ["<|endoftext|>"])


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that writes a run directory and loads it."""
    return partial(random_run, tmp_path / "runs")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A run on bytes."""
    return random_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def bpe_run(tmp_path_factory: pytest.TempPathFactory, bpe: Tokenizer) -> TrainedRun:
    """A run on tokens of several bytes."""
    return random_run(tmp_path_factory.mktemp("runs"), "bpe", bpe)
