"""Whole runs of the real command line: results, kills, resumes, full disks."""

import json
import math
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Train = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]
TIMES = (
    "seconds",
    "tokens_per_second",
    "batch_time_share",
    "mfu",
    "matmul_utilization",
    "memory_gib",
)


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def untimed(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows(run)]


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


@pytest.fixture(scope="module")
def reference(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run nothing happened to."""
    folder = tmp_path_factory.mktemp("reference")
    command = [sys.executable, str(ROOT / "train.py"), *tiny, "hydra.run.dir=run"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder / "run"


def test_a_run_leaves_what_it_should(reference: Path) -> None:
    values = result(reference)
    assert values["status"] == "finished"
    assert values["steps"] == 12
    assert values["tokens"] == 12 * 4 * 32
    assert values["val_loss"] < math.log(257)
    assert values["val_bits_per_byte"] == pytest.approx(values["val_loss"] / math.log(2), rel=0.05)
    names = "val_loss val_bits_per_byte tokens_per_second parameters flops config_fingerprint"
    assert set(names.split()) <= values.keys()
    assert [row["step"] for row in rows(reference)] == [0, 2, 4, 6, 8, 10, 12]
    assert {"train/loss", "val/loss", "val/bits_per_byte", "lr", "grad_norm", "mfu"} <= rows(
        reference
    )[-1].keys()
    assert json.loads((reference / "environment.json").read_text())["device"] == "cpu"
    kept = sorted(path.name for path in (reference / "checkpoints").iterdir())
    assert kept == ["latest", "step_00000009.pt", "step_00000012.pt"]
    assert (reference / "checkpoints" / "latest").resolve().name == "step_00000012.pt"
    assert (reference / "samples.txt").read_text().count("=== step ") == 4
    assert "<html" in (reference / "report.html").read_text()
    assert (reference / "loss.png").read_bytes().startswith(b"\x89PNG")
    shown = (reference.parent / "stdout").read_text()
    assert "bits per byte" in shown
    assert "xz needs" in shown
    assert "run/report.html" in shown


def test_the_same_seed_gives_the_same_numbers_and_reuses_the_data(
    train: Train, tiny: list[str], reference: Path, tmp_path: Path
) -> None:
    done = train(*tiny, "hydra.run.dir=again")
    assert "reusing" in done.stderr
    assert untimed(tmp_path / "again") == untimed(reference)
    train(*tiny, "hydra.run.dir=other", "seed=1")
    assert result(tmp_path / "other")["val_loss"] != result(reference)["val_loss"]


def start(tiny: list[str], folder: Path, *extra: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), *tiny, *extra]
    return subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def wait_for_step(run: Path, step: int) -> None:
    for _ in range(6000):
        if (run / "metrics.jsonl").exists() and any(row["step"] >= step for row in rows(run)):
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} was never reached")


SLOW = ["budget.steps=60", "schedule.end=12"]
"""Long enough to be killed in the middle."""


def test_killed_and_resumed_equals_undisturbed(
    train: Train, tiny: list[str], tmp_path: Path
) -> None:
    assert train(*tiny, *SLOW, "hydra.run.dir=whole").returncode == 0
    run = tmp_path / "cut"
    for _ in range(2):
        process = start(tiny, tmp_path, *SLOW, f"hydra.run.dir={run}")
        wait_for_step(run, (rows(run)[-1]["step"] if run.exists() else 0) + random.randint(2, 14))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (run / "result.json").exists()
    done = train(f"resume={run}")
    assert done.returncode == 0, done.stderr
    assert "resuming after step" in done.stderr
    whole = tmp_path / "whole"
    assert result(run)["val_loss"] == result(whole)["val_loss"]
    assert untimed(run) == untimed(whole)
    assert (run / "samples.txt").read_text() == (whole / "samples.txt").read_text()
    assert len(json.loads((run / "environment.json").read_text())["resumed"]) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_saves_and_stops(tiny: list[str], tmp_path: Path, number: signal.Signals) -> None:
    run = tmp_path / "run"
    process = start(tiny, tmp_path, "budget.steps=100000", f"hydra.run.dir={run}")
    wait_for_step(run, 4)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert f"{number.name}: saving and stopping" in errors
    assert "continue with:" in errors
    assert not (run / "result.json").exists()
    last = max(path.name for path in (run / "checkpoints").glob("step_*.pt"))
    assert int(last[5:13]) >= rows(run)[-1]["step"]


def test_another_configuration_is_refused(
    train: Train, tiny: list[str], reference: Path, tmp_path: Path
) -> None:
    before = (reference / "config.yaml").read_bytes()
    done = train(*tiny, "lr=0.5", f"resume={reference}")
    assert done.returncode == 1
    assert "started with another configuration" in done.stderr
    assert "lr: 0.01 -> 0.5" in done.stderr
    assert (reference / "config.yaml").read_bytes() == before


def test_a_finished_run_is_not_run_again(train: Train, reference: Path) -> None:
    done = train(f"resume={reference}")
    assert done.returncode == 0
    assert "is finished already, after 12 steps" in done.stderr


def test_a_cut_checkpoint_falls_back(train: Train, tiny: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(*tiny, f"hydra.run.dir={run}").returncode == 0
    expected = untimed(run)
    (run / "result.json").unlink()
    newest = run / "checkpoints" / "step_00000012.pt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    done = train(f"resume={run}")
    assert done.returncode == 0, done.stderr
    assert "step_00000012.pt is damaged" in done.stderr
    assert "resuming after step 9" in done.stderr
    assert untimed(run) == expected


def test_a_full_disk_keeps_the_last_checkpoint(
    train: Train, tiny: list[str], tmp_path: Path
) -> None:
    """A limit on the size of files stands in for a full disk: a write fails in the middle."""
    run = tmp_path / "run"
    process = start(tiny, tmp_path, *SLOW, f"hydra.run.dir={run}")
    wait_for_step(run, 10)
    process.kill()
    process.communicate()
    newest = max((run / "checkpoints").glob("step_*.pt"))
    before = newest.read_bytes()
    limit = len(before) // 2
    done = train(
        f"resume={run}",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    assert "cannot write checkpoint" in done.stderr
    assert f"{newest.name} is safe" in done.stderr
    assert "Traceback" not in done.stderr
    assert newest.read_bytes() == before
    assert not list((run / "checkpoints").glob(".*"))
    assert train(f"resume={run}").returncode == 0
    assert result(run)["status"] == "finished"


def test_divergence_is_a_result(train: Train, tiny: list[str], tmp_path: Path) -> None:
    done = train(*tiny, "lr=1e30", "trainer.log_every=1", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    values = result(tmp_path / "run")
    assert values["status"] == "diverged"
    last = rows(tmp_path / "run")[-1]
    assert last["train/loss"] is None or last["grad_norm"] is None
    assert "diverged" in done.stdout


def test_a_sweep_started_again_skips_what_is_finished(
    train: Train, tiny: list[str], tmp_path: Path
) -> None:
    sweep = ["-m", *tiny, "name=s", "budget.steps=2", "lr=1e-3,2e-3"]
    assert train(*sweep).returncode == 0
    runs = sorted((tmp_path / "runs" / "sweeps" / "s").iterdir())
    runs = [run for run in runs if (run / "result.json").exists()]
    assert [run.name[:8] for run in runs] == ["lr=0.001", "lr=0.002"]
    stamps = [(run / "result.json").stat().st_mtime_ns for run in runs]
    done = train("lr=2e-3,1e-3", *sweep[1:-1], "-m")
    assert done.returncode == 0, done.stderr
    assert sorted(path.parent for path in runs[0].parent.glob("*/result.json")) == runs
    assert [(run / "result.json").stat().st_mtime_ns for run in runs] == stamps


def test_two_processes_do_not_share_a_run(train: Train, tiny: list[str], tmp_path: Path) -> None:
    process = start(tiny, tmp_path, "budget.steps=100000", "hydra.run.dir=run")
    wait_for_step(tmp_path / "run", 2)
    done = train(*tiny, "budget.steps=100000", "hydra.run.dir=run")
    process.kill()
    process.communicate()
    assert done.returncode == 1
    assert "in use by another process" in done.stderr


def test_a_device_that_is_not_there(train: Train, tiny: list[str]) -> None:
    done = train(*tiny, "trainer.device=cuda:7")
    assert done.returncode == 1
    assert "config error at 'trainer.device': 'cuda:7' is not available" in done.stderr


def test_a_corpus_shorter_than_a_context(train: Train, tiny: list[str], tmp_path: Path) -> None:
    done = train(*tiny, "model.context_length=1000000")
    assert done.returncode == 1
    assert "one context takes 1,000,001" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/*/*")), "a run directory was left behind"


@pytest.mark.parametrize(
    ("given", "environment", "words"),
    [
        (["logger.mode=online"], {}, "No API key configured"),
        ([], {"WANDB_MODE": "bogus"}, "WANDB_MODE=bogus: Input should be 'online'"),
        (["logger.mode=offline", "logger.project='a/b'"], {}, "Invalid project name 'a/b'"),
    ],
    ids=["no login", "mode", "project"],
)
def test_what_wandb_refuses_is_one_line(
    given: list[str],
    environment: dict[str, str],
    words: str,
    train: Train,
    tiny: list[str],
    tmp_path: Path,
) -> None:
    nobody = {"WANDB_API_KEY": "", "HOME": str(tmp_path), "NETRC": str(tmp_path / "none")}
    command = [*tiny, "logger=wandb", *given, "hydra.run.dir=run"]
    done = train(*command, env=nobody | environment)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("logger=wandb: ")
    assert words in line
    assert not (tmp_path / "run").exists()


def test_wandb_works_offline_without_a_login(
    train: Train, tiny: list[str], reference: Path, tmp_path: Path
) -> None:
    nobody = {"HOME": str(tmp_path), "WANDB_API_KEY": "", "NETRC": str(tmp_path / "none")}
    done = train(*tiny, "logger=wandb", "hydra.run.dir=run", env=nobody)
    assert done.returncode == 0, done.stderr
    assert untimed(tmp_path / "run") == untimed(reference)
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


def test_a_profile_and_norms_on_request(train: Train, tiny: list[str], tmp_path: Path) -> None:
    done = train(*tiny, "debug=profile", "trainer.watch_norms=true", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert "profile of 5 steps: run/trace.json" in done.stderr.replace(f"{tmp_path}/", "")
    assert "aten::" in (tmp_path / "run" / "operators.txt").read_text()
    assert {"train/weight_norm/block_0", "memory_gib"} <= rows(tmp_path / "run")[-1].keys()
