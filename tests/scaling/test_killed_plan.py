"""A plan of real runs that is killed and started again."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

BUDGET, TARGET = 7e10, 3e11
TIMEOUT = 500
LOG = "plan.log"


def start(folder: Path, corpus: Path) -> subprocess.Popen[str]:
    command = [
        *(sys.executable, "-m", "lmlab.cli", "scaling", "plan"),
        *("--budget", f"{BUDGET:g}", "--target", f"{TARGET:g}"),
        *("tokenizer=byte", "data=text", f"data.paths=['{corpus}']", r"data.separator='\n\n'"),
        *("optimizer=adamw", "lr=1e-2", "model.context_length=16", "trainer.batch_size=1"),
        *("trainer.eval_windows=8", "trainer.checkpoint_every=200", "trainer.device=cpu"),
        *("trainer.precision=fp32", "task.sample.tokens=0"),
    ]
    with (folder / LOG).open("a") as log:
        return subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, text=True, start_new_session=True
        )


def finished(folder: Path) -> dict[Path, int]:
    """Return the results of the runs that have one, and when they were written."""
    found = (folder / "runs" / "sweeps").glob("plan_plan_*/*/result.json")
    return {path: path.stat().st_mtime_ns for path in found}


def wait_for(folder: Path, runs: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + TIMEOUT
    while len(finished(folder)) < runs:
        assert process.poll() is None, (folder / LOG).read_text()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def running() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes whose groups are killed at the end, if they are still there."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_plan_goes_on_and_makes_no_run_twice(
    tmp_path: Path, corpus: Path, running: list[subprocess.Popen[str]]
) -> None:
    first = start(tmp_path, corpus)
    running.append(first)
    wait_for(tmp_path, 2, first)
    first.kill()  # the sweep that it started goes on
    first.wait()
    second = start(tmp_path, corpus)
    running.append(second)
    wait_for(tmp_path, 6, second)
    os.killpg(second.pid, signal.SIGKILL)  # with all that it started
    second.wait()
    before = finished(tmp_path)
    third = start(tmp_path, corpus)
    running.append(third)
    wait_for(tmp_path, len(before) + 3, third)
    os.killpg(third.pid, signal.SIGKILL)
    third.wait()
    after = finished(tmp_path)
    assert {path: after[path] for path in before} == before
    journal = json.loads((tmp_path / "runs" / "plans" / "plan" / "plan.json").read_text())
    runs = [run for round_ in journal["rounds"] for run in round_["runs"]]
    assert sum(run["train_flops"] for run in runs) <= BUDGET
    losses = [json.loads(path.read_text())["val_loss"] for path in after]
    known = [run["loss"] for run in runs if run["loss"] is not None]
    assert len(set(losses)) == len(losses) >= len(known) > 0
    assert set(known) <= set(losses)
    started = (tmp_path / "runs" / "sweeps").glob("plan_plan_*/*/config.yaml")
    assert len(list(started)) <= len(runs)
