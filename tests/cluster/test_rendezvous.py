"""How the processes of a job meet."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lmlab.cluster import rendezvous
from lmlab.cluster.processes import this_process
from lmlab.cluster.records import write_record
from lmlab.cluster.rendezvous import RENDEZVOUS
from lmlab.errors import UserError
from tests_support import composed

JOB = "import sys; from lmlab.cluster.job import run_job; run_job(sys.argv[1])"


def test_a_job_whose_drawn_port_is_taken_trains(tiny: list[str], tmp_path: Path) -> None:
    """submitit draws the port from the job's number, of a range in which others' ports are, too."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(composed(*tiny).to_yaml())
    place = {"SLURM_JOB_NODELIST": "localhost", "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS": "2"}
    place |= {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "4", "OMP_NUM_THREADS": "1"}
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # taken by another program: as good
            taken.bind(("", random.Random("4").randint(20000, 60000)))
        taken.listen()
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", JOB, str(run)],
                env=os.environ | place | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        try:
            errors = [process.communicate(timeout=120)[1] for process in processes]
        finally:
            for process in processes:
                process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    assert json.loads((run / "result.json").read_text())["status"] == "finished"
    assert json.loads((run / RENDEZVOUS).read_text())["job"] == "4"


@pytest.mark.parametrize(
    "change", [{}, {"job": "8"}, {"restarts": 0}, {"start_time": 1.0}, None], ids=str
)
def test_only_this_start_of_this_job_is_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object] | None
) -> None:
    """Outside Slurm a job is named by a process, whose number a later one may have."""
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    status = {"job": "7", "restarts": 1, **this_process()}
    if change is not None:
        write_record(tmp_path / RENDEZVOUS, {**status, "port": 5, **change})
    if change == {}:
        assert rendezvous._told(tmp_path, status, 1) == 5
        return
    with pytest.raises(UserError, match=r"rendezvous\.json within 1 s"):
        rendezvous._told(tmp_path, status, 1)
