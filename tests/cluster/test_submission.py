"""Submitting, without a Slurm: an `sbatch` that only says yes shows what it would have got."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lmlab.cli import main
from tests_support import ROOT

Train = Callable[..., "subprocess.CompletedProcess[str]"]
SLURM = ("-m", "hydra/launcher=submitit_slurm")


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH has a cluster that accepts everything and knows of no job."""
    folder = tmp_path / "bin"
    folder.mkdir()
    scripts = {"sbatch": "echo Submitted batch job 77", "srun": ":", "squeue": ":"}
    for name, line in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def runs(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("runs/sweeps/*/*/config.yaml"))


def script(folder: Path) -> str:
    (path,) = folder.glob("runs/sweeps/*/.submit/*_submission.sh")
    return path.read_text()


def test_a_sweep_is_one_array_of_resolved_configurations(
    train: Train, slurm: dict[str, str], tmp_path: Path
) -> None:
    done = train(*SLURM, "lr=1e-3,1e-2", "seed=0,1", "slurm.partition=gpu", env=slurm)
    assert done.returncode == 0, done.stderr
    assert "submitted 4 runs as job 77" in done.stdout
    assert "  77_2: lr=0.01 seed=0" in done.stdout
    names = [run.name for run in runs(tmp_path)]
    assert [name.rpartition("_")[0] for name in names] == [
        f"lr={lr},seed={seed}" for lr in (0.001, 0.01) for seed in (0, 1)
    ]
    config = yaml.safe_load((runs(tmp_path)[2] / "config.yaml").read_text())
    assert (config["lr"], config["optimizer"]["lr"]) == (0.01, 0.01)
    text = script(tmp_path)
    assert "#SBATCH --array=0-3%4" in text
    assert "#SBATCH --partition=gpu" in text
    assert "#SBATCH --signal=USR2@120" in text
    assert "#SBATCH --requeue\n" in text


def test_resources_and_extra_options_reach_sbatch(
    train: Train, slurm: dict[str, str], tmp_path: Path
) -> None:
    done = train(
        *SLURM,
        "slurm.nodes=2",
        "slurm.tasks_per_node=4",
        "slurm.gpus_per_node=4",
        "slurm.cpus_per_task=8",
        "slurm.mem_gb=1.5",
        "slurm.timeout_min=90",
        "slurm.setup=[module load cuda]",
        "+slurm.extra.mail-type=END",
        "+slurm.extra.exclusive=true",
        env=slurm,
    )
    assert done.returncode == 0, done.stderr
    assert "submitted 1 run as job 77" in done.stdout
    text = script(tmp_path)
    wanted = {"nodes": 2, "ntasks-per-node": 4, "gpus-per-node": 4, "cpus-per-task": 8}
    wanted |= {"mem": "1536M", "time": 90, "mail-type": "END"}
    for option, value in wanted.items():
        assert f"#SBATCH --{option}={value}\n" in text
    assert "#SBATCH --exclusive\n" in text
    assert "module load cuda" in text
    assert "--array" not in text


def test_a_job_is_pinned_to_a_copy_of_the_code(
    train: Train, slurm: dict[str, str], tmp_path: Path
) -> None:
    assert train(*SLURM, "lr=1e-3,1e-2", env=slurm).returncode == 0
    (copy,) = tmp_path.glob("runs/sweeps/default/.submit/code/*")
    for path in ("task/pretrain.py", "runs/templates/report.css", "revision.json"):
        assert (copy / "lmlab" / path).exists()
    for package in ("cleaning", "kernels", "tokenizer"):
        assert list(copy.glob(f"lmlab/{package}/_core*.so")), package
    pickled = next(tmp_path.glob("runs/sweeps/default/.submit/77_0_submitted.pkl")).read_bytes()
    assert str(copy).encode() in pickled
    assert b"lmlab.cluster.start\n" not in pickled  # by value: nothing is imported to unpickle it


def test_submitting_never_imports_torch(slurm: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", str(ROOT / "train.py"), *SLURM]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | slurm, capture_output=True, text=True
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "submitit" in imported
    assert not imported & {"torch", "matplotlib", "scipy", "plotly", "wandb"}


def a_hundred(value: str) -> str:
    """Return 100 learning rates of which the 57th is this."""
    return ",".join(value if number == 57 else f"{number}e-5" for number in range(1, 101))


MISTAKES = {
    "key": (["model.d_modle=3,4"], "'model.d_modle': unknown key, did you mean 'd_model'?"),
    "choice": (["model=tiny,smal"], "(did you mean 'small'?)"),
    "job 57": (
        [f"lr={a_hundred('-1')}"],
        "config error at 'lr': must be > 0, got -1 (job 57 of 100: lr=-1)",
    ),
    "text in job 57": ([f"lr={a_hundred('fast')}"], "(job 57 of 100: lr=fast)"),
    "swept resources": (["slurm.nodes=1,2"], "slurm.* cannot vary within a sweep"),
    "resources": (["slurm.nodes=0"], "config error at 'slurm.nodes': must be >= 1, got 0"),
    "resource": (["slurm.partion=x"], "'slurm.partion': unknown key, did you mean 'partition'?"),
    "parallel": (
        ["hydra/launcher=submitit_local", "hydra.launcher.parallel=0"],
        "config error at 'hydra.launcher.parallel': must be > 0, got 0",
    ),
    "nodes here": (
        ["hydra/launcher=submitit_local", "slurm.nodes=2"],
        "submitit_local has this machine only",
    ),
}


@pytest.mark.parametrize("arguments_and_text", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_and_submits_nothing(
    train: Train,
    slurm: dict[str, str],
    tmp_path: Path,
    arguments_and_text: tuple[list[str], str],
) -> None:
    arguments, text = arguments_and_text
    done = train(*SLURM, *arguments, env=slurm)
    assert (done.returncode, done.stdout) == (1, "")
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert runs(tmp_path) == []
    assert not list(tmp_path.glob("runs/sweeps/*/.submit"))


def test_without_slurm(train: Train, tmp_path: Path) -> None:
    done = train(*SLURM, env={"PATH": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr.startswith("there is no Slurm on this machine")
    assert len(done.stderr.splitlines()) == 1
    assert runs(tmp_path) == []


def test_when_sbatch_refuses(train: Train, slurm: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bin" / "sbatch").write_text(
        "#!/bin/sh\necho 'sbatch: error: invalid partition specified: nowhere' >&2\nexit 1\n"
    )
    done = train(*SLURM, "slurm.partition=nowhere", "lr=1e-3,1e-2", env=slurm)
    assert done.returncode == 1
    assert done.stderr == (
        "sbatch refused, nothing was submitted: invalid partition specified: nowhere\n"
    )
    assert runs(tmp_path) == []


def test_a_directory_of_another_run(train: Train, slurm: dict[str, str], tmp_path: Path) -> None:
    own = (*SLURM, "hydra.sweep.subdir=${seed}", "seed=0,1")
    assert train(*own, env=slurm).returncode == 0
    done = train(*own, "lr=0.5", env=slurm)
    assert done.returncode == 1
    assert "was started with another configuration (lr: 0.01 -> 0.5" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("launcher", ["local", "submitit_local", "submitit_slurm"])
@pytest.mark.parametrize("axis", ["model/ffn=glob(zzz*)", "lr=range(1,1)"])
def test_a_sweep_without_jobs(
    train: Train, slurm: dict[str, str], tmp_path: Path, launcher: str, axis: str
) -> None:
    done = train("-m", f"hydra/launcher={launcher}", axis, "seed=0,1", env=slurm)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"the sweep has no jobs: the axis '{axis}' is empty\n"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("launcher", ["local", "submitit_local", "submitit_slurm"])
def test_two_runs_for_one_directory(
    train: Train, slurm: dict[str, str], tmp_path: Path, launcher: str
) -> None:
    own = ("-m", f"hydra/launcher={launcher}", "hydra.sweep.subdir=x")
    done = train(*own, "lr=1e-3,1e-2", env=slurm)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "runs/sweeps/default/x would be the directory of two runs "
        "(lr: 0.001 -> 0.01, optimizer.lr: 0.001 -> 0.01); "
        "give each its own with hydra.sweep.subdir=\n"
    )
    assert runs(tmp_path) == []


def test_the_same_run_twice_is_one(train: Train, slurm: dict[str, str], tmp_path: Path) -> None:
    done = train(*SLURM, "lr=1e-3,0.001,1e-2", env=slurm)
    assert done.returncode == 0, done.stderr
    assert "submitted 2 runs" in done.stdout
    assert len(runs(tmp_path)) == 2


def test_resources_may_differ_from_those_of_finished_runs(
    train: Train, slurm: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(*SLURM, "seed=0", "slurm.mem_gb=1", env=slurm).returncode == 0
    (run,) = runs(tmp_path)
    (run / "result.json").write_text('{"status": "finished"}')
    assert train(*SLURM, "seed=1", "slurm.mem_gb=2", env=slurm).returncode == 0
    monkeypatch.setenv("PATH", slurm["PATH"])
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "resume", "runs"]) == 0


def test_a_folder_that_cannot_be_written(
    train: Train, slurm: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "runs").write_text("a file")
    done = train(*SLURM, env=slurm)
    assert done.returncode == 1
    assert re.fullmatch(r"[\w ]+: \S*runs/sweeps\S*\n", done.stderr), done.stderr


def test_minus_m_forgotten(train: Train, slurm: dict[str, str]) -> None:
    done = train("hydra/launcher=submitit_slurm", env=slurm)
    assert done.returncode == 1
    assert done.stderr == (
        "hydra/launcher=submitit_slurm takes effect only with -m: "
        "python train.py -m hydra/launcher=submitit_slurm\n"
    )


def test_the_commands_refuse_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, text in (
        (["runs", str(tmp_path / "nowhere")], "is not a folder"),
        (["runs", str(tmp_path / "empty")], "there are no runs in"),
        (["sweep", "cancel", str(tmp_path / "empty")], "there are no runs in"),
        (["sweep", "explode", str(tmp_path)], "invalid choice: 'explode'"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert text in error
        assert len(error.splitlines()) == 1
