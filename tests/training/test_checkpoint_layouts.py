"""Runs with checkpoints of either layout: every command reads both; they convert exactly."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import lmlab
from lmlab.cli import main as command
from lmlab.layout import checkpoint_of
from lmlab.task import run as train
from lmlab.training.checkpoint import read_checkpoint
from tests_support import ROOT, composed


@pytest.fixture(scope="module")
def run(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with tied embeddings, whose checkpoints are files."""
    directory = tmp_path_factory.mktemp("layouts") / "run"
    train(composed(*tiny, "model.tie_embeddings=true", "optimizer=adamw"), directory)
    return directory


@pytest.fixture
def sharded(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A copy of the run with folders alone."""
    copy = tmp_path / "sharded"
    shutil.copytree(run, copy, symlinks=True)
    (copy / "checkpoints" / "latest").unlink()
    for path in sorted((copy / "checkpoints").glob("step_*.pt")):
        assert command(["checkpoint", "convert", str(path), "--to", "sharded"]) == 0
        assert capsys.readouterr().out.strip() == str(path.with_suffix(".dcp"))
        path.unlink()
    return copy


def assert_equal(ours: Any, theirs: Any) -> None:
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_equal(ours[key], theirs[key])
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    else:
        assert ours == theirs


def test_converting_there_and_back_changes_nothing(
    run: Path, sharded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["checkpoint", "convert", str(sharded)]) == 0
    back = Path(capsys.readouterr().out.strip())
    assert back == sharded / "checkpoints" / "step_00000012.pt"
    original = run / "checkpoints" / back.name
    assert_equal(torch.load(back), torch.load(original))
    assert back.stat().st_size == pytest.approx(original.stat().st_size, rel=0.01)  # still tied
    stored = [path.stat().st_size for path in checkpoint_of(sharded).glob("*.distcp")]
    assert sum(stored) < 1.5 * original.stat().st_size
    for arguments, expected in (
        ([str(sharded), "--to", "sharded"], "is sharded already"),
        ([str(sharded)], "step_00000012.pt exists already"),
        ([str(sharded / "config.yaml")], "is not a checkpoint"),
        ([str(sharded / "nowhere")], "does not exist"),
    ):
        assert command(["checkpoint", "convert", *arguments]) == 1
        assert expected in capsys.readouterr().err


@pytest.mark.parametrize("to", ["plain", "sharded"])
def test_a_full_disk_leaves_what_was_there(to: str, run: Path, sharded: Path) -> None:
    path = sharded if to == "plain" else run
    before = sorted((path / "checkpoints").iterdir())
    limit = 100_000
    done = subprocess.run(
        [sys.executable, "-m", "lmlab.cli", "checkpoint", "convert", str(path), "--to", to],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    target = path / "checkpoints" / "step_00000012"
    suffix = "pt" if to == "plain" else "dcp"
    line = f"lmlab: cannot write {target}.{suffix}: File too large; free disk space\n"
    assert done.stderr == line
    assert sorted((path / "checkpoints").iterdir()) == before


def test_a_checkpoint_of_an_earlier_version_without_names_is_converted(
    run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "old"
    shutil.copytree(run, copy)
    path = checkpoint_of(copy)
    state = torch.load(path)
    for group in state["optimizer"]["param_groups"]:
        del group["param_names"]
    torch.save(state, path)
    assert command(["checkpoint", "convert", str(copy), "--to", "sharded"]) == 0
    assert_equal(read_checkpoint(path.with_suffix(".dcp")), state)


def test_every_command_reads_folders(
    run: Path, sharded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = lmlab.load(sharded), lmlab.load(run)
    assert ours.step == theirs.step == 12
    assert torch.equal(ours.logits("the sea"), theirs.logits("the sea"))
    assert ours.model.lm_head.weight is ours.model.token_embedding.weight
    folder = sharded / "checkpoints" / "step_00000009.dcp"
    assert (lmlab.load(folder).step, lmlab.load(folder).directory) == (9, sharded)
    (sharded / "checkpoints" / "latest").symlink_to("step_00000012.dcp")
    assert lmlab.load(sharded / "checkpoints" / "latest").step == 12
    outputs = []
    for name, source in (("a", folder), ("b", run / "checkpoints" / "step_00000009.pt")):
        exported = tmp_path / name
        for arguments in (
            ["generate", str(source), "--prompt", "the sea", "--max-new-tokens", "4"],
            ["export", str(source), "--to", "huggingface", str(exported)],
        ):
            assert command(arguments) == 0, capsys.readouterr().err
        outputs.append((exported / "model.safetensors").read_bytes())
    assert outputs[0] == outputs[1]


def test_resume_and_branch_take_folders(run: Path, sharded: Path, tmp_path: Path) -> None:
    folder = sharded / "checkpoints" / "step_00000009.dcp"
    (sharded / "result.json").unlink()
    train(composed(f"resume={folder}"), sharded)
    assert (sharded / "checkpoints" / "step_00000012.dcp.superseded").is_dir()
    assert checkpoint_of(sharded).name == "step_00000012.pt"
    assert_equal(
        torch.load(checkpoint_of(sharded))["model"], torch.load(checkpoint_of(run))["model"]
    )
    child = tmp_path / "child"
    train(composed(f"init_from={folder}", "init_optimizer=true", "budget.steps=10"), child)
    assert json.loads((child / "lineage.json").read_text())["step"] == 9


def test_show(run: Path, sharded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for path in (run, sharded):
        assert command(["checkpoint", "show", str(path)]) == 0
        shown.append(capsys.readouterr().out)
    plain, folder = shown
    parameters = sum(p.numel() for p in lmlab.load(run).model.parameters())
    for text in shown:
        assert re.search(rf"parameters +{parameters:,}\n", text)
        assert re.search(r"step +12\n", text)
        assert re.search(r"token_embedding.weight +257 x 32 +float32\n", text)
        assert re.search(r"lm_head.weight +257 x 32 +float32\n", text)
        assert re.search(r"optimizer +state of \d+ parameters\n", text)
    assert "plain, written by 1 process" in plain
    assert "sharded, written by 1 process" in folder
    values = checkpoint_of(sharded) / "values.pt"
    values.write_bytes(values.read_bytes()[:-1])
    assert command(["checkpoint", "show", str(sharded)]) == 1
    assert "is damaged (values.pt has" in capsys.readouterr().err


def rows(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_killed_sharded_run_resumes_with_one_process(tiny: list[str], tmp_path: Path) -> None:
    """Started by torchrun with two processes, one of them killed; its node is not replaced."""
    options = [*tiny, "trainer.log_every=1", "optimizer=adamw", "trainer.checkpoint_every=4"]
    options.append("budget.steps=40")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(composed(*options), whole)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = subprocess.Popen(
        [*torchrun, str(ROOT / "train.py"), *options, "parallel=fsdp", f"hydra.run.dir={killed}"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = killed / "checkpoints"
    while not list(folder.glob("step_*.dcp")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    process.communicate()
    kept = checkpoint_of(killed)
    logged = rows(killed)[-1]["step"]
    assert kept.suffix == ".dcp"
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), f"resume={killed}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"resuming after step {int(kept.stem[5:])}" in done.stderr
    assert logged - int(kept.stem[5:]) <= 2 * 4  # at most what came after the last checkpoint
    ours, theirs = rows(killed), rows(whole)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.get("train/loss", 0) == pytest.approx(b.get("train/loss", 0), rel=1e-3), a["step"]
    assert lmlab.load(killed).step == 40
