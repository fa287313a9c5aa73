"""`hydra/launcher=submitit_local`: real jobs in processes of this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from lmlab.cli import main
from lmlab.cluster.launch_processes import visible_gpus
from tests_support import ROOT

Train = Callable[..., "subprocess.CompletedProcess[str]"]
LOCAL = ("-m", "hydra/launcher=submitit_local")


def records(folder: Path, name: str) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"runs/*/*/*/{name}"))]


def test_at_most_so_many_at_a_time_and_nothing_twice(
    train: Train, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = train(*LOCAL, *tiny, "seed=0,1", "hydra.launcher.parallel=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished ") == 2
    assert [result["status"] for result in records(tmp_path, "result.json")] == ["finished"] * 2
    spans = []
    for path in tmp_path.glob("runs/sweeps/*/*/status.json"):
        ended = datetime.fromisoformat(json.loads(path.read_text())["time"])
        begun = json.loads((path.parent / "environment.json").read_text())["started"]
        spans.append((datetime.fromisoformat(begun), ended))
    spans.sort()
    assert all(first[1] <= second[0] for first, second in pairwise(spans))
    again = train(*LOCAL, *tiny, "seed=0,1")
    assert "submitted 0 runs, 2 runs finished before" in again.stdout
    assert main(["runs", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr().out
    assert shown.count("finished  12/12") == 2
    assert shown.endswith("2 runs: 2 finished\n")


def test_jobs_of_two_processes_meet(train: Train, tiny: list[str], tmp_path: Path) -> None:
    own = ("slurm.tasks_per_node=2", "parallel=ddp", "seed=0,1")
    done = train(*LOCAL, *tiny, *own)
    assert done.returncode == 0, done.stderr
    assert len({record["port"] for record in records(tmp_path, "rendezvous.json")}) == 2
    assert [result["status"] for result in records(tmp_path, "result.json")] == ["finished"] * 2


def test_a_crash_is_told_and_seen(
    train: Train, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = train(*LOCAL, *tiny, "data.paths=['nowhere.txt']")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("1 of 1 runs did not finish")
    assert main(["sweep", "status", str(tmp_path / "runs/sweeps/default")]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[1].startswith("failed")
    assert "nowhere.txt" in shown
    (error,) = tmp_path.glob("runs/sweeps/default/*/error.txt")
    assert error.read_text().startswith("Traceback")


def test_cancelled_and_resumed_equals_undisturbed(
    train: Train, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [*tiny, "budget.steps=150", "trainer.checkpoint_every=1000", "task.sample.tokens=0"]
    own += ["trainer.eval_every=1"]
    assert train(*own, "hydra.run.dir=whole").returncode == 0
    launcher = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *LOCAL, *own],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = tmp_path / "runs" / "sweeps" / "default"

    def step() -> int:
        lines = [p.read_text().splitlines() for p in folder.glob("*/metrics.jsonl")]
        return len(lines[0]) if lines else 0

    while step() < 20:
        time.sleep(0.05)
        assert launcher.poll() is None, launcher.communicate()
    assert main(["sweep", "cancel", str(folder)]) == 0
    assert "cancelled 1 of 1 runs" in capsys.readouterr().out
    assert launcher.wait(60) == 130
    (run,) = (path.parent for path in folder.glob("*/config.yaml"))
    assert not (run / "result.json").exists()
    assert main(["runs", str(folder)]) == 0
    assert "1 cancelled" in capsys.readouterr().out
    assert main(["sweep", "resume", str(folder), "lr=3"]) == 1
    assert "'lr=3' is not slurm.KEY=VALUE" in capsys.readouterr().err
    assert main(["sweep", "resume", str(folder), "slurm.timeout_min=7"]) == 1
    assert "'slurm.timeout_min': takes effect only with" in capsys.readouterr().err
    here = Path.cwd()
    try:
        assert main(["sweep", "resume", str(folder), "slurm.setup=[date]"]) == 0
    finally:
        os.chdir(here)
    results = [json.loads((p / "result.json").read_text()) for p in (run, tmp_path / "whole")]
    assert results[0]["val_loss"] == results[1]["val_loss"]
    assert results[0]["steps"] == 150


def test_a_killed_job_is_no_mystery(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *LOCAL, *tiny, "budget.steps=100000"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.glob("runs/sweeps/*/*/metrics.jsonl")):
        time.sleep(0.05)
        assert launcher.poll() is None, launcher.communicate()
    (status,) = tmp_path.glob("runs/sweeps/*/*/status.json")
    os.kill(json.loads(status.read_text())["pid"], signal.SIGKILL)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 1
    assert errors.splitlines()[-1].startswith("1 of 1 runs did not finish")
    assert main(["runs", str(tmp_path / "runs")]) == 0
    assert "exited without reporting a status (killed)" in capsys.readouterr().out


def test_code_that_must_be_unchanged_is_compared_when_the_job_starts(
    train: Train, tiny: list[str], tmp_path: Path
) -> None:
    done = train(*LOCAL, *tiny, "slurm.code=unchanged")
    assert done.returncode == 0, done.stderr
    (result,) = tmp_path.glob("runs/sweeps/*/*/result.json")
    result.unlink()
    job = "import sys; from lmlab.cluster.job import run_job; run_job(sys.argv[1], 'another hash')"
    command = [sys.executable, "-c", job, str(result.parent)]
    refused = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert refused.returncode == 1
    status = json.loads((result.parent / "status.json").read_text())
    assert status["state"] == "failed"
    assert "the code has changed since this run was submitted" in status["error"]
    assert not result.exists()


WHOLE = """\
GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-69cc9119-2a0e-9a1a-5e4f-5d6ee0ba3d5e)
"""
DIVIDED = """\
GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.40gb     Device  0: (UUID: MIG-c7384736-a75d-5afc-978f-d2f1294409fd)
  MIG 1g.10gb     Device  1: (UUID: MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-69cc9119-2a0e-9a1a-5e4f-5d6ee0ba3d5e)
"""
OLD_DRIVER = """\
GPU 0: A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb Device 0: (UUID: MIG-GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77/2/0)
"""


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        (WHOLE, ["0", "1"]),
        (
            DIVIDED,
            [
                "MIG-c7384736-a75d-5afc-978f-d2f1294409fd",
                "MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d",
                "GPU-69cc9119-2a0e-9a1a-5e4f-5d6ee0ba3d5e",
            ],
        ),
        (OLD_DRIVER, ["MIG-GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77/2/0"]),
        ("", []),
        ("No devices found.\n", []),
    ],
)
def test_gpus_are_those_that_nvidia_smi_lists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listed: str, names: list[str]
) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<END\n{listed}END\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert visible_gpus() == names


def test_jobs_share_gpus_named_by_uuid(train: Train, tiny: list[str], tmp_path: Path) -> None:
    chosen = {"CUDA_VISIBLE_DEVICES": "GPU-8932f937-d72c, MIG-41b36d1a-5e9f,-1,3"}
    own = ("slurm.gpus_per_node=1", r"slurm.setup=['echo $CUDA_VISIBLE_DEVICES >> seen']")
    done = train(*LOCAL, *tiny, *own, "seed=0,1", "budget.steps=1", env=chosen)
    assert done.returncode == 0, done.stderr
    seen = sorted((tmp_path / "seen").read_text().split())
    assert seen == ["GPU-8932f937-d72c", "MIG-41b36d1a-5e9f"]
    done = train(*LOCAL, *tiny, *own, "seed=2,3,4", "hydra.launcher.parallel=3", env=chosen)
    assert "GPUs, there are 2; set hydra.launcher.parallel" in done.stderr
