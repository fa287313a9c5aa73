"""Fixtures shared by all tests; none needs anything that a fresh clone does not have."""

import os

# Tiny models are faster on one thread, and several test processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests_support import ROOT, TINY, WORDS

# A shell that starts the tests in the background has them ignore Ctrl-C, and so what they start.
with contextlib.suppress(ValueError):  # in a thread
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A peak measured beside other tests is none to keep.
os.environ.setdefault("LMLAB_CACHE", tempfile.mkdtemp(prefix="lmlab-cache-"))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 200 made-up documents, separated by blank lines."""
    path = tmp_path_factory.mktemp("corpus") / "stories.txt"
    state = 1
    documents = []
    for _ in range(200):
        words = []
        for _ in range(40):
            state = state * 1103515245 + 12345 & 0x7FFFFFFF
            words.append(WORDS[(state >> 16) % len(WORDS)])
        documents.append(" ".join(words))
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The overrides of a run of seconds on `corpus`."""
    cache = tmp_path_factory.mktemp("cache")
    own = [f"data.paths=['{corpus}']", r"data.separator='\n\n'", f"data.cache_dir='{cache}'"]
    return [*TINY, *own]


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real command line in an empty folder."""

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=os.environ | options.pop("env", {}),
            timeout=300,
            **options,
        )

    return run
