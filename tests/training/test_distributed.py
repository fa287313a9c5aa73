"""Several processes with gloo: the same losses, one writer, one stop for all."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import ONE_THREAD, TRAIN, finish, start

from lmlab.errors import UserError
from lmlab.training.distributed import init_distributed
from tests_support import ROOT


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    command = [*TRAIN, *tiny, "hydra.run.dir=run"]
    subprocess.run(command, cwd=folder, env=ONE_THREAD, check=True, capture_output=True)
    return folder / "run"


def assert_same(run: Path, reference: Path) -> None:
    ours, theirs = rows(run), rows(reference)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    assert [row["tokens"] for row in ours] == [row["tokens"] for row in theirs]
    for a, b in zip(ours, theirs, strict=True):
        for key in ("train/loss", "val/loss", "val/bits_per_byte", "grad_norm", "lr"):
            assert (key in a) == (key in b)
            assert a.get(key, 0) == pytest.approx(b.get(key, 0), rel=1e-4), (a["step"], key)


@pytest.mark.parametrize(
    ("size", "micro_batch_size"), [(2, 1), pytest.param(4, "null", marks=pytest.mark.slow)]
)
def test_the_number_of_processes_changes_no_loss(
    tiny: list[str], alone: Path, tmp_path: Path, size: int, micro_batch_size: int
) -> None:
    option = f"trainer.micro_batch_size={micro_batch_size}"
    ended = finish(start(tmp_path, size, *tiny, option, "name=several"))
    assert [code for code, _, _ in ended] == [0] * size, ended
    (run,) = (tmp_path / "runs" / "several").iterdir()  # one directory, whoever named it when
    assert_same(run, alone)
    assert [bool(output) for _, output, _ in ended] == [True] + [False] * (size - 1)
    assert not any("step" in errors for _, _, errors in ended[1:])
    device = json.loads((run / "environment.json").read_text())["device"]
    assert device == f"{size} x cpu"


@pytest.mark.parametrize("often", [(), ("trainer.eval_every=1",)], ids=["steps", "evaluations"])
def test_one_process_is_told_to_stop_and_all_do(
    tiny: list[str], alone: Path, tmp_path: Path, often: tuple[str, ...]
) -> None:
    """The signal reaches a process that does not write; another number of them goes on, exactly."""
    run = tmp_path / "run"
    processes = start(tmp_path, 2, *tiny, *often, "budget.steps=100000", f"hydra.run.dir={run}")
    while not (run / "metrics.jsonl").exists() or rows(run)[-1]["step"] < 4:
        assert all(process.poll() is None for process in processes), finish(processes)
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGUSR2)
    ended = finish(processes)
    assert [code for code, _, _ in ended] == [128 + signal.SIGUSR2] * 2, ended
    assert "continue with:" in ended[0][2]
    assert (run / "checkpoints" / "latest").exists()


def test_torchrun(tiny: list[str], alone: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, str(ROOT / "train.py"), *tiny, "hydra.run.dir=run"]
    done = subprocess.run(command, cwd=tmp_path, env=ONE_THREAD, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "run", alone)


def test_when_one_process_fails_the_others_say_so(tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the run directory should be")
    ended = finish(start(tmp_path, 2, *tiny, "trainer.batch_size=3"))
    assert [code for code, _, _ in ended] == [1, 1]
    for _, _, errors in ended:
        assert "'trainer.batch_size': 3 is not divisible by the 2 processes" in errors
    processes = start(tmp_path, 2, *tiny, "budget.steps=100000", "hydra.run.dir=other")
    while not (tmp_path / "other" / "metrics.jsonl").exists():
        assert all(process.poll() is None for process in processes), finish(processes)
        time.sleep(0.01)
    processes[0].kill()
    code, _, errors = finish(processes)[1]
    assert code == 1
    assert "process 1 of 2 stops: another process exited" in errors
    assert "Traceback" not in errors


def test_an_environment_without_a_master(tiny: list[str], tmp_path: Path) -> None:
    half = ONE_THREAD | {"WORLD_SIZE": "2", "RANK": "0"}
    done = subprocess.run(
        [*TRAIN, *tiny], cwd=tmp_path, env=half, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("start with torchrun --nproc-per-node=N train.py")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', which is not an integer"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT is 'http', which is not an integer"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT is 70000, which is more than 65535"),
        ({"RANK": "2"}, "RANK is 2, and must be less than WORLD_SIZE, which is 2"),
        ({"WORLD_SIZE": "0"}, "RANK is 0, and must be less than WORLD_SIZE, which is 0"),
    ],
)
def test_an_environment_that_is_wrong(
    wrong: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    for name, value in (place | {"MASTER_PORT": "1"} | wrong).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "init_process_group", None)  # is not reached
    with pytest.raises(UserError, match=message), init_distributed():
        pass
