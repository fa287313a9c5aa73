"""Asking a Slurm that gives no answer."""

import os
import time
from pathlib import Path

import pytest

from lmlab.cli import main
from lmlab.cluster import slurm
from lmlab.cluster.records import write_record
from lmlab.errors import UserError


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands that note that they were called and hang, and nobody who waits long for them."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "squeue", "scancel", "scontrol"):
        (folder / name).write_text(f"#!/bin/sh\necho {name} >> {tmp_path}/asked\nexec sleep 60\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr("lmlab.cluster.slurm._ask.__kwdefaults__", {"seconds": 1.0})
    monkeypatch.setattr("lmlab.cluster.slurm.GRACE", 1.5)
    return tmp_path / "asked"


def test_runs_are_listed_as_last_seen(
    hanging: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("name: x\n")
    write_record(run / "submission.json", {"cluster": "slurm", "job": "7", "log": ""})
    write_record(run / "status.json", {"state": "running", "job": "7"})
    assert slurm.states(["7"]) is None
    assert main(["runs", str(run.parent)]) == 0
    line, detail = capsys.readouterr().out.splitlines()[1:3]
    assert line.startswith("running ")
    assert line.endswith("  a")
    assert detail == "    as last seen; no Slurm answers here"
    assert main(["sweep", "cancel", str(run.parent)]) == 1
    assert capsys.readouterr().err == "lmlab: scancel: no answer within 1 s\n"


def test_a_job_asks_within_its_time_of_grace(hanging: Path) -> None:
    begun = time.monotonic()
    assert slurm.state("7") == ""
    with pytest.raises(UserError, match="scontrol requeue 7: no answer within"):
        slurm.requeue("7")
    assert time.monotonic() - begun < 5
    assert set(hanging.read_text().split()) == {"squeue", "scontrol"}
