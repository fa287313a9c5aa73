"""`lmlab sweep cancel`, and what is said of cancelled runs afterwards."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmlab.cli import main
from lmlab.cluster.processes import start_time
from lmlab.cluster.records import read_record, write_record
from tests_support import ROOT

HERE = socket.gethostname()


def submitted(folder: Path, **record: object) -> Path:
    """Write a run that was submitted, and nothing else."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("name: x\n")
    write_record(folder / "submission.json", {"job": "", "log": "", **record})
    return folder


LAUNCHERS = {
    "local": ("hydra/launcher=local",),
    "submitit_local": ("hydra/launcher=submitit_local", "hydra.launcher.parallel=1"),
}


def launched(
    tiny: list[str], folder: Path, launcher: str = "submitit_local", seeds: str = "0,1"
) -> subprocess.Popen[str]:
    """Start a sweep of long runs, one at a time; return its launcher when the first trains."""
    own = ("-m", *LAUNCHERS[launcher], f"seed={seeds}")
    long = ("budget.steps=1000000", "trainer.checkpoint_every=1000000", "task.sample.tokens=0")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *own, *tiny, *long],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_run(folder, "*", process)
    return process


def wait_for_run(folder: Path, name: str, launcher: subprocess.Popen[str]) -> Path:
    """Return the run of a sweep when it trains."""
    while not (found := list(folder.glob(f"runs/sweeps/*/{name}/metrics.jsonl"))):
        time.sleep(0.05)
        assert launcher.poll() is None, launcher.communicate()
    return found[0].parent


def shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["runs", str(folder)]) == 0
    return capsys.readouterr().out


def test_runs_that_waited_are_cancelled_too(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher = launched(tiny, tmp_path)
    assert main(["sweep", "cancel", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out == "cancelled 2 of 2 runs\n"
    assert launcher.wait(60) == 130
    text = shown(tmp_path / "runs", capsys)
    assert text.endswith("2 runs: 2 cancelled\n")
    assert text.count("\n    before it started") == 1


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_one_run_of_a_sweep_is_cancelled_alone(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], launcher: str
) -> None:
    process = launched(tiny, tmp_path, launcher, seeds="0,1,2")
    (waiting,) = tmp_path.glob("runs/sweeps/*/seed=1_*")
    assert main(["sweep", "cancel", str(waiting)]) == 0
    assert capsys.readouterr().out == "cancelled 1 of 1 runs\n"
    assert "1 running, 1 cancelled, 1 queued" in shown(tmp_path / "runs", capsys)
    (training,) = tmp_path.glob("runs/sweeps/*/seed=0_*")
    assert main(["sweep", "cancel", str(training)]) == 0
    assert capsys.readouterr().out == "cancelled 1 of 1 runs\n"
    last = wait_for_run(tmp_path, "seed=2_*", process)
    assert list((training / "checkpoints").glob("step_*.pt"))
    assert not (waiting / "metrics.jsonl").exists()
    assert "2 cancelled, 1 running" in shown(tmp_path / "runs", capsys)
    assert main(["sweep", "cancel", str(last)]) == 0
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert shown(tmp_path / "runs", capsys).endswith("3 runs: 3 cancelled\n")


def test_without_its_launcher_a_run_is_told_itself(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher = launched(tiny, tmp_path)
    launcher.kill()
    launcher.wait()
    assert main(["sweep", "cancel", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out == "cancelled 1 of 2 runs\n"
    limit = time.monotonic() + 60
    while "1 running" in (text := shown(tmp_path / "runs", capsys)):
        assert time.monotonic() < limit
        time.sleep(0.1)
    assert text.endswith("2 runs: 1 cancelled, 1 failed\n")
    assert "never started (its launcher exited)" in text
    assert list(tmp_path.glob("runs/sweeps/*/*/checkpoints/step_*.pt"))


def test_another_process_with_the_number_of_a_launcher_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"cluster": "local", "pid": os.getpid(), "host": HERE, "start_time": 1.0}
    submitted(tmp_path / "a", **record)
    assert main(["sweep", "cancel", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nothing to cancel\n"
    assert "1 failed" in shown(tmp_path, capsys)


def test_runs_of_another_machine_are_not_said_to_be_cancelled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sleeper = subprocess.Popen(["sleep", "100"])
    submitted(tmp_path / "a", cluster="local", pid=sleeper.pid, host="elsewhere", job="1")
    submitted(
        tmp_path / "b",
        cluster="local",
        pid=sleeper.pid,
        host=HERE,
        start_time=start_time(sleeper.pid),
    )
    assert shown(tmp_path, capsys).splitlines()[2] == "    on elsewhere"
    try:
        assert main(["sweep", "cancel", str(tmp_path)]) == 1
    finally:
        sleeper.terminate()
    said = capsys.readouterr()
    assert said.out == "cancelled 1 of 2 runs\n"
    assert said.err == "lmlab: 1 run is on elsewhere: cancel there\n"
    assert sleeper.wait() == -signal.SIGINT


def test_a_run_started_by_hand_is_left_to_the_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("name: x\n")
    write_record(tmp_path / "environment.json", {"pid": os.getpid(), "host": HERE})
    assert main(["sweep", "cancel", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error == "lmlab: 1 run is not submitted: press Ctrl-C where it was started\n"


def test_a_cancelled_run_stays_cancelled_when_slurm_forgets_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "scancel", "squeue"):
        line = f"echo {name} $@ >> {tmp_path}/asked"
        line += "\necho 7_0 PENDING; echo 7_1 PENDING" if name == "squeue" else ""
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    runs = [submitted(tmp_path / "runs" / n, cluster="slurm", job=f"7_{n}") for n in "01"]
    write_record(runs[1] / "status.json", {"state": "requeued", "job": "7_1"})
    assert main(["sweep", "cancel", str(tmp_path / "runs")]) == 0
    assert "scancel 7_0 7_1\n" in (tmp_path / "asked").read_text()
    assert "1 queued, 1 requeued" in shown(tmp_path / "runs", capsys)
    (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\n")  # MinJobAge later
    text = shown(tmp_path / "runs", capsys)
    assert text.endswith("2 runs: 2 cancelled\n")
    assert text.count("\n    before it started") == 1
    assert read_record(runs[0] / "submission.json")["job"] == "7_0"
