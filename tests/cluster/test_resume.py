"""`lmlab sweep resume`: what it refuses."""

from pathlib import Path

import pytest

from lmlab.cli import main
from lmlab.cluster.records import write_record
from tests_support import composed

MISTAKES = {
    "no jobs at a time": (["--parallel", "0"], "must be an integer > 0, got '0'"),
    "jobs in words": (["--parallel", "two"], "must be an integer > 0, got 'two'"),
    "below a number": (["slurm.timeout_min.x=3"], "'slurm.timeout_min.x': unknown key"),
    "below a list": (["slurm.setup.x=3"], "'slurm.setup.x': unknown key"),
    "below nothing": (["slurm.account.x=3"], "'slurm.account.x': unknown key"),
    "no YAML": (["slurm.extra.x=["], "'slurm.extra.x': cannot be read as YAML: ["),
    "unknown": (["slurm.tmeout_min=3"], "unknown key, did you mean 'timeout_min'?"),
    "out of range": (["slurm.nodes=0"], "'slurm.nodes': must be >= 1, got 0"),
    "not Slurm's": (["lr=3"], "'lr=3' is not slurm.KEY=VALUE"),
}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep of one run that was submitted to this machine, from a folder that is gone."""
    run = tmp_path / "sweep" / "run"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(composed().to_yaml())
    record = {"cluster": "local", "job": "", "log": "", "pid": 2**22 + 1, "cwd": "/nowhere/at/all"}
    write_record(run / "submission.json", record)
    return run.parent


@pytest.mark.parametrize("arguments_and_text", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line(
    sweep: Path, capsys: pytest.CaptureFixture[str], arguments_and_text: tuple[list[str], str]
) -> None:
    arguments, text = arguments_and_text
    assert main(["sweep", "resume", str(sweep), *arguments]) == 1
    error = capsys.readouterr().err
    assert text in error
    assert len(error.splitlines()) == 1


def test_a_folder_that_is_gone_is_named(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "resume", str(sweep)]) == 1
    assert capsys.readouterr().err == (
        f"lmlab: the working directory of {sweep} does not exist: /nowhere/at/all\n"
    )


def test_only_the_folder_is_demanded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "resume"]) == 1
    assert "the following arguments are required: DIR (see" in capsys.readouterr().err
