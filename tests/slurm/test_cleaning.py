"""A cleaning run on a real Slurm: job arrays of datatrove, one after the other."""

import subprocess
import sys
from pathlib import Path

import pytest
from corpus import RECIPE, config, content, write_corpus
from virtual_cluster import VirtualCluster, wait_until

from lmlab.cleaning.run import clean
from tests_support import ROOT


def test_slurm_gives_the_same(cluster: VirtualCluster, tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    inputs, output = write_corpus(tmp_path / "in"), tmp_path / "out"
    overrides = ("executor=slurm", "executor.partition=main", "executor.tasks=2")
    command = [sys.executable, str(ROOT / "clean.py"), f"input='{inputs}'", f"output='{output}'"]
    done = subprocess.run(
        [*command, *RECIPE, *overrides, "executor.mem_per_cpu_gb=1", "executor.time='0:10:00'"],
        env=cluster.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("submitted jobs")
    wait_until((output / "manifest.json").exists, "the manifest", 300)
    wait_until(lambda: not (output / "work").exists(), "the end of the last job")
    clean(config(inputs, tmp_path / "local"), progress=False)
    assert content(output) == content(tmp_path / "local")
