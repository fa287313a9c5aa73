"""What Slurm does to jobs, on a real Slurm: nothing is lost, nothing is run twice."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_support import (
    LONG,
    jobs_of,
    last_step,
    log_of,
    only_run,
    record,
    saved_step,
    start_again,
    untimed,
    wait_for_state,
    wait_for_status,
    wait_for_step,
)
from virtual_cluster import VirtualCluster, wait_until

from lmlab.cli import main
from tests_support import ROOT

Submit = Callable[..., "subprocess.CompletedProcess[str]"]
SLOW_STEPS = ("trainer.eval_every=1", "task.sample.tokens=0", "trainer.checkpoint_every=100000")


def test_a_sweep_returns_at_once_and_is_not_run_twice(
    cluster: VirtualCluster, submit: Submit, tmp_path: Path
) -> None:
    jobs = jobs_of(submit("lr=1e-3,1e-2", "+slurm.extra.hold=true"))  # not over before the next
    array = jobs[0].partition("_")[0]
    assert jobs == [f"{array}_0", f"{array}_1"]
    again = submit("lr=1e-3,1e-2")
    assert "2 runs queued or running already" in again.stdout
    cluster.tell("scontrol", "release", array)
    runs = [path.parent for path in tmp_path.glob("runs/sweeps/default/*/config.yaml")]
    assert len(runs) == 2
    wait_until(lambda: all((run / "result.json").exists() for run in runs), "both results")
    wait_until(lambda: all(cluster.state(job) == "COMPLETED" for job in jobs), "both jobs")
    grown = submit("lr=1e-3,1e-2,2e-2", "hydra.launcher.wait=true")
    assert "submitted 1 run as job" in grown.stdout
    assert "2 runs finished before" in grown.stdout
    assert len(list(tmp_path.glob("runs/sweeps/default/*/result.json"))) == 3
    assert record(runs[0] / "environment.json")["git_commit"] is not None
    command = [sys.executable, str(ROOT / "train.py"), f"resume={runs[0]}"]
    assert "is finished already" in subprocess.run(command, capture_output=True, text=True).stderr


def test_the_time_limit_requeues_until_restarts_are_used_up(
    cluster: VirtualCluster, submit: Submit, tmp_path: Path
) -> None:
    limit = ("slurm.timeout_min=1", "slurm.signal_delay_s=45", "slurm.max_restarts=1")
    (job,) = jobs_of(submit(*LONG, *limit))
    run = only_run(tmp_path)
    wait_for_status(run, "requeued")
    wait_for_state(cluster, job, "PENDING")
    reached = saved_step(run)
    assert record(run / "status.json")["signal"] == "SIGUSR2"
    start_again(cluster, job)
    wait_for_step(run, reached + 1)
    assert f"resuming after step {reached}" in log_of(run)
    wait_for_state(cluster, job, "FAILED")
    status = record(run / "status.json")
    assert status["state"] == "failed"
    assert "time limit reached after 1 restarts; resume with: lmlab sweep resume" in status["error"]
    assert "UserError" in (run / "error.txt").read_text()
    assert list((run / "checkpoints").glob("step_*.pt"))


def disturb(cluster: VirtualCluster, job: str, run: Path, times: int) -> None:
    """Preempt a running job again and again, each time after it has made a step."""
    for count in range(times):
        wait_for_step(run, last_step(run) + 1)
        cluster.preempt()
        wait_for_status(run, "requeued")
        assert not (run / "result.json").exists(), f"it ended after {count} preemptions"
        start_again(cluster, job)


def train_here(cluster: VirtualCluster, folder: Path, *overrides: str) -> "subprocess.Popen[bytes]":
    """Train in this test's folder without Slurm."""
    command = [sys.executable, str(ROOT / "train.py"), *overrides]
    return subprocess.Popen(command, cwd=folder, env=cluster.environment, stderr=subprocess.DEVNULL)


SECONDS_BETWEEN = 3  # of steps, at most, from a start to the next preemption


@pytest.mark.parametrize(
    "times", [2, pytest.param(20, marks=(pytest.mark.slow, pytest.mark.timeout(1800)))]
)
def test_nothing_is_lost_when_a_run_is_preempted(
    cluster: VirtualCluster,
    submit: Submit,
    tiny: list[str],
    tmp_path: Path,
    times: int,
) -> None:
    short = train_here(
        cluster, tmp_path, *tiny, *SLOW_STEPS, "budget.steps=200", "hydra.run.dir=short"
    )
    assert short.wait(120) == 0
    seconds = record(tmp_path / "short" / "result.json")["seconds"]
    steps = round(200 / seconds * SECONDS_BETWEEN * times)  # so that it lasts, on any machine
    own = (*SLOW_STEPS, f"budget.steps={steps}")
    whole = train_here(cluster, tmp_path, *tiny, *own, "hydra.run.dir=undisturbed")
    (job,) = jobs_of(submit(*own, "slurm.max_restarts=0"))  # preemptions do not count
    run = only_run(tmp_path)
    disturb(cluster, job, run, times)
    wait_until((run / "result.json").exists, "the end of the run", 600)
    assert whole.wait(600) == 0
    undisturbed = tmp_path / "undisturbed"
    assert record(run / "status.json")["restarts"] == times
    assert untimed(run) == untimed(undisturbed)
    losses = [record(path / "result.json")["val_loss"] for path in (run, undisturbed)]
    assert losses[0] == losses[1]
    wait_for_state(cluster, job, "COMPLETED")


def test_a_requeue_from_outside_goes_on(
    cluster: VirtualCluster, submit: Submit, tmp_path: Path
) -> None:
    (job,) = jobs_of(submit(*LONG))
    run = only_run(tmp_path)
    wait_for_step(run, 4)
    cluster.tell("scontrol", "requeue", job)
    wait_for_status(run, "requeued")
    reached = saved_step(run)
    start_again(cluster, job)
    wait_for_step(run, reached + 1)
    assert f"resuming after step {reached}" in log_of(run)
    cluster.tell("scancel", job)
    wait_for_status(run, "cancelled")


def test_a_cancelled_job_keeps_its_work(
    cluster: VirtualCluster, submit: Submit, tmp_path: Path
) -> None:
    (job,) = jobs_of(submit(*LONG))
    run = only_run(tmp_path)
    wait_for_step(run, 4)
    cluster.tell("scancel", job)
    wait_for_status(run, "cancelled")
    wait_for_state(cluster, job, "CANCELLED")
    assert saved_step(run) >= last_step(run)


def test_a_signal_before_the_first_step_is_no_failure(
    cluster: VirtualCluster, submit: Submit, tmp_path: Path
) -> None:
    """Preempted while torch is imported: there is nothing to save, and the run must come back."""
    (job,) = jobs_of(submit("budget.steps=5"))
    run = only_run(tmp_path)
    wait_until((run / "status.json").exists, "the job to begin")
    cluster.preempt()
    wait_until(lambda: cluster.state(job) == "PENDING" or (run / "result.json").exists(), "end")
    if not (run / "result.json").exists():
        start_again(cluster, job)
    wait_until((run / "result.json").exists, "the end of the run")


def test_a_crash_is_a_failure_that_people_see(
    cluster: VirtualCluster, submit: Submit, tmp_path: Path
) -> None:
    done = submit("data.paths=['nowhere.txt']", "hydra.launcher.wait=true")
    run = only_run(tmp_path)
    job = record(run / "submission.json")["job"]
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("1 of 1 runs did not finish")
    wait_for_state(cluster, job, "FAILED")
    status = record(run / "status.json")
    assert status["state"] == "failed"
    assert "nowhere.txt" in status["error"]
    assert (run / "error.txt").read_text().startswith("Traceback")
    assert "nowhere.txt" in log_of(run)
    assert "nowhere.txt" in done.stdout  # said when it happened


def test_a_partition_that_does_not_exist(
    cluster: VirtualCluster, submit: Submit, tmp_path: Path
) -> None:
    done = submit("slurm.partition=nowhere", "lr=1e-3,1e-2")
    assert done.returncode == 1
    assert done.stderr.startswith("sbatch refused, nothing was submitted: ")
    assert "invalid partition" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("runs/sweeps/*/*/config.yaml"))


def test_cancel_and_resume_by_command(
    cluster: VirtualCluster, submit: Submit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ("trainer.eval_every=1", "budget.steps=300", "task.sample.tokens=0")
    jobs = jobs_of(submit(*own, "lr=1e-3,1e-2", "slurm.array_parallelism=1"))
    folder = tmp_path / "runs" / "sweeps" / "default"
    first = next(path.parent for path in folder.glob("*/submission.json"))
    wait_until(lambda: list(folder.glob("*/metrics.jsonl")), "the first run to begin")
    capsys.readouterr()
    assert main(["runs", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "2 runs: 1 running, 1 queued" in shown or "2 runs: 1 queued, 1 running" in shown
    assert main(["sweep", "cancel", str(folder)]) == 0
    assert "cancelled 2 of 2 runs" in capsys.readouterr().out
    wait_until(lambda: all(cluster.state(job) == "CANCELLED" for job in jobs), "both to end")
    assert main(["sweep", "status", str(folder)]) == 0
    assert "2 runs: 2 cancelled" in capsys.readouterr().out
    here = Path.cwd()
    try:
        assert main(["sweep", "resume", str(folder), "slurm.array_parallelism=2"]) == 0
    finally:
        os.chdir(here)
    assert "submitted 2 runs as job" in capsys.readouterr().out
    wait_until(lambda: len(list(folder.glob("*/result.json"))) == 2, "both results")
    assert record(first / "result.json")["steps"] == 300
    assert main(["sweep", "resume", str(folder)]) == 0
    assert "submitted 0 runs, 2 runs finished before" in capsys.readouterr().out


TOGETHER = ("slurm.nodes=2", "slurm.tasks_per_node=2")


def test_two_nodes_with_two_tasks_equal_one_process(
    cluster: VirtualCluster, submit: Submit, tiny: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("lmlab.training.distributed")
    exact = "optimizer=sgd", "lr=0.1"  # Muon rounds each matrix to bfloat16
    command = [sys.executable, str(ROOT / "train.py"), *tiny, *exact, "hydra.run.dir=alone"]
    alone = subprocess.Popen(command, cwd=tmp_path, env=cluster.environment)
    done = submit(*TOGETHER, *exact, "hydra.launcher.wait=true")
    assert done.returncode == 0, done.stderr
    assert alone.wait(120) == 0
    run = only_run(tmp_path)
    losses = [record(path / "result.json")["val_loss"] for path in (run, tmp_path / "alone")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert len(list((run.parent / ".submit").glob("*_log.err"))) == 4


def test_two_nodes_with_two_tasks_are_preempted_as_one(
    cluster: VirtualCluster, submit: Submit, tmp_path: Path
) -> None:
    pytest.importorskip("lmlab.training.distributed")
    (job,) = jobs_of(submit(*LONG, *TOGETHER))
    run = only_run(tmp_path)
    disturb(cluster, job, run, 2)
    reached = saved_step(run)
    wait_for_step(run, reached + 1)
    assert f"resuming after step {reached}" in log_of(run)
    cluster.tell("scancel", job)
    wait_for_status(run, "cancelled")
