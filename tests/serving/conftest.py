"""A small trained run, and servers of it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from serving.running import LINE, Running, Start, running
from tests_support import ROOT

SMALL = (
    "tokenizer=byte", "data=text", r"data.separator='\n\n'", "model.d_model=48",
    "model.num_layers=2", "model.num_heads=2", "model.d_ff=96", "model.context_length=128",
    "budget.steps=120", "trainer.batch_size=8", "trainer.eval_every=120", "lr=0.02",
    "trainer.eval_windows=2", "trainer.checkpoint_every=60", "trainer.device=cpu",
    "trainer.precision=fp32", "task.sample.tokens=8",
)  # fmt: skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that continues LINE."""
    folder = tmp_path_factory.mktemp("served")
    text = "\n\n".join(f"{i}\n{LINE * 20}" for i in range(40))
    (folder / "lines.txt").write_text(text, encoding="utf-8")
    command = [
        sys.executable, str(ROOT / "train.py"), *SMALL, "name=lines",
        "data.paths=[lines.txt]", "data.cache_dir=cache", "hydra.run.dir=run",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture
def start(trained: Path) -> Iterator[Start]:
    """Start servers of the run that stop with the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            running(options.pop("paths", [trained]), **options)
        )


@pytest.fixture(scope="module")
def served(trained: Path) -> Iterator[Running]:
    """One server for the tests of a module."""
    with running([trained]) as it:
        yield it
