"""A cluster for the whole session; without Slurm, munge or root its tests are skipped."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests_support import ROOT
from virtual_cluster import VirtualCluster, missing

Submit = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the cluster."""
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualCluster]:
    reason = missing()
    if reason:
        pytest.skip(f"no Slurm to test with: {reason}")
    cluster = VirtualCluster(tmp_path_factory.mktemp("slurm"))
    cluster.environment["OMP_NUM_THREADS"] = "1"
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def submit(cluster: VirtualCluster, tiny: list[str], tmp_path: Path) -> Submit:
    """Run `train.py -m hydra/launcher=submitit_slurm` with the overrides of a tiny run."""

    def run(*overrides: str, train: Path = ROOT / "train.py") -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(train), "-m", "hydra/launcher=submitit_slurm", *tiny]
        return subprocess.run(
            [*command, "slurm.cpus_per_task=1", *overrides],
            cwd=tmp_path,
            env=cluster.environment | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def jobs_of(done: "subprocess.CompletedProcess[str]") -> list[str]:
    """Return the names of the submitted jobs."""
    assert done.returncode == 0, done.stderr
    return re.findall(r"^  ([\d_]+): ", done.stdout, re.MULTILINE)
