"""What the tests on Slurm share beside fixtures."""

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from virtual_cluster import VirtualCluster, wait_until

from lmlab.cluster.run_state import state_of

MEASURED = (
    "seconds",
    "tokens_per_second",
    "batch_time_share",
    "mfu",
    "matmul_utilization",
    "memory_gib",
)
LONG = ("budget.steps=100000", "trainer.checkpoint_every=1000", "task.sample.tokens=0")
"""A run that something will happen to before it ends."""


def jobs_of(done: "subprocess.CompletedProcess[str]") -> list[str]:
    """Return the names of the submitted jobs."""
    assert done.returncode == 0, done.stderr
    return re.findall(r"^  ([\d_]+): ", done.stdout, re.MULTILINE)


def only_run(folder: Path) -> Path:
    """Return the one run directory of the default sweep."""
    (run,) = (path.parent for path in folder.glob("runs/sweeps/*/*/config.yaml"))
    return run


def record(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def rows(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def untimed(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows(run)]


def last_step(run: Path) -> int:
    return max((row["step"] for row in rows(run)), default=-1)


def log_of(run: Path) -> str:
    """Return what the job's process printed on stderr."""
    return Path(record(run / "submission.json")["log"]).with_suffix(".err").read_text()


def wait_for_step(run: Path, step: int) -> None:
    wait_until(lambda: last_step(run) >= step, f"step {step} of {run.name}")


def wait_for_state(cluster: VirtualCluster, job: str, *states: str) -> None:
    wait_until(lambda: cluster.state(job) in states, f"job {job} to be {' or '.join(states)}")


def saved_step(run: Path) -> int:
    """Return the step of the newest checkpoint."""
    newest = max(path.name for path in (run / "checkpoints").glob("step_*.pt"))
    return int(newest[5:13])


def wait_for_status(run: Path, name: str) -> None:
    """Wait for what `lmlab runs` says of a run."""
    try:
        wait_until(lambda: state_of([run])[run].name == name, f"a run to be {name}")
    except TimeoutError as error:
        raise TimeoutError(f"{error}; it is {state_of([run])[run]}") from None


def start_again(cluster: VirtualCluster, job: str) -> None:
    """Start a requeued job without Slurm's two minutes of waiting.

    A node takes a job for killed when it starts in the second, by the clock, in which it was killed
    ("already killed, do not launch batch job"), and the job fails: which those minutes prevent.
    """
    wait_for_state(cluster, job, "PENDING")
    time.sleep(1.5)

    def running() -> bool:
        cluster.start_now(job)
        return cluster.state(job) == "RUNNING"

    wait_until(running, f"job {job} to start again")
