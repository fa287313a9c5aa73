"""The default launcher: one run after the other, found again, and shared between two sweeps."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests_support import ROOT

Train = Callable[..., "subprocess.CompletedProcess[str]"]


def runs(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("runs/sweeps/*/*/config.yaml"))


def test_a_grown_sweep_finds_its_runs_under_older_names(
    train: Train, tiny: list[str], tmp_path: Path
) -> None:
    assert train("-m", *tiny, "lr=1e-3").returncode == 0
    (name,) = runs(tmp_path)
    assert name.startswith("seed=0_")
    done = train("-m", *tiny, "seed=0,1", "lr=0.001")
    assert done.returncode == 0, done.stderr
    assert "1 run finished before" in done.stdout
    assert [run.partition("_")[0] for run in runs(tmp_path)] == ["seed=0", "seed=1"]
    folder = tmp_path / "runs/sweeps/default"
    (folder / name).rename(folder / "renamed by hand")
    done = train("-m", *tiny, "seed=0,1", "lr=1e-3")
    assert "2 runs finished before" in done.stdout
    done = train(f"resume=runs/sweeps/default/{runs(tmp_path)[1]}")
    assert done.returncode == 0, done.stderr


def test_a_failed_run_leaves_the_others_alone(
    train: Train, tiny: list[str], tmp_path: Path
) -> None:
    paths = next(override for override in tiny if override.startswith("data.paths="))
    good = paths.partition("=")[2]
    own = [override for override in tiny if override is not paths]
    done = train("-m", *own, f"data.paths=[nowhere.txt],{good}")
    assert done.returncode == 1
    head, line = done.stderr.splitlines()[-2:]
    assert head == "1 of 2 runs did not finish; start the sweep again for them:"
    assert "failed: " in line
    assert "nowhere.txt" in line
    assert "Traceback" not in done.stderr
    assert len(list(tmp_path.glob("runs/sweeps/*/*/result.json"))) == 1


@pytest.mark.parametrize("launcher", ["local", "submitit_local"])
def test_the_same_sweep_twice_at_once(tiny: list[str], tmp_path: Path, launcher: str) -> None:
    command = [sys.executable, str(ROOT / "train.py"), "-m", f"hydra/launcher={launcher}", *tiny]
    both = [
        subprocess.Popen(
            [*command, "seed=0,1", "budget.steps=60"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len(list(tmp_path.glob("runs/sweeps/*/*/result.json"))) == 2
    if launcher == "local":
        assert sum(text.count("finished after") for text in said) == 2
        assert sum("2 runs" in text and "already" in text for text in said) == 1


def test_a_launcher_in_a_sweep_file_is_used(train: Train, tiny: list[str], tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for name in ("conf", "experiments"):
        shutil.copytree(ROOT / name, project / name)
    (project / "sweeps").mkdir()
    (project / "sweeps" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/launcher: submitit_local\n"
        "name: mine\nhydra: {launcher: {parallel: 1}, sweeper: {params: {seed: '0,1'}}}\n"
    )
    script = "from pathlib import Path; from lmlab.hydra_app import main; main(Path("
    script += f"{str(project / 'conf')!r}))"
    done = subprocess.run(
        [sys.executable, "-c", script, "-m", "sweep=mine", *tiny],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.count("started seed=") == 2, done.stdout + done.stderr


def test_cfg_job_shows_every_job(train: Train, tmp_path: Path) -> None:
    done = train("-m", "lr=1e-3,1e-2", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    heads = [line for line in done.stdout.splitlines() if line.startswith("---")]
    assert [head.rpartition("/")[2].partition("_")[0] for head in heads] == ["lr=0.001", "lr=0.01"]
    assert runs(tmp_path) == []
