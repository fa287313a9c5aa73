"""Fixtures of scaling laws."""

import subprocess
import sys
from pathlib import Path

import pytest
from tables import BUDGETS, SIZES

from tests_support import ROOT


@pytest.fixture(scope="session")
def folder(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of four sizes on two budgets."""
    directory = tmp_path_factory.mktemp("isoflop")
    shapes = ",".join(
        f"{{d_model: {width}, num_layers: {depth}, num_heads: {width // 16}, d_ff: null}}"
        for width, depth in SIZES
    )
    command = [
        *(sys.executable, str(ROOT / "train.py"), "-m"),
        *(each for each in tiny if not each.startswith(("budget", "model.d", "model.num"))),
        *("budget=flops", f"budget.flops={','.join(map(str, BUDGETS))}", f"model={shapes}"),
        *("optimizer=adamw", "lr=1e-2", "trainer.eval_every=10", f"hydra.sweep.dir={directory}"),
    ]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory
