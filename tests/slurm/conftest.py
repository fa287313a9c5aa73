"""A cluster for the whole session; without Slurm, munge or root its tests are skipped."""

import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from virtual_cluster import VirtualCluster, missing

from tests_support import ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the cluster."""
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slurm)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the jobs of a failed test printed: most of them fail by waiting in vain."""
    report = yield
    if report.failed and "tmp_path" in getattr(item, "funcargs", {}):
        for log in sorted(item.funcargs["tmp_path"].glob("**/.submit/*_log.err")):
            end = log.read_text(errors="replace").splitlines()[-15:]
            report.sections.append((f"end of {log.name}", "\n".join(end)))
    return report


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualCluster]:
    reason = missing()
    if reason:
        pytest.skip(f"no Slurm to test with: {reason}")
    cluster = VirtualCluster(tmp_path_factory.mktemp("slurm"))
    cluster.environment["OMP_NUM_THREADS"] = "1"
    try:
        cluster.start()
        os.environ["SLURM_CONF"] = cluster.environment["SLURM_CONF"]
        yield cluster
    finally:
        os.environ.pop("SLURM_CONF", None)
        cluster.stop()


@pytest.fixture
def submit(
    cluster: VirtualCluster, tiny: list[str], tmp_path: Path
) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Submit a tiny run or a sweep of them: `train.py -m hydra/launcher=submitit_slurm ...`."""

    def run(*overrides: str, train: Path = ROOT / "train.py") -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(train), "-m", "hydra/launcher=submitit_slurm", *tiny]
        return subprocess.run(
            [*command, "slurm.cpus_per_task=1", *overrides],
            cwd=tmp_path,
            env=cluster.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run
