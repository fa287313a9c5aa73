"""The body of a job between the signals of a Slurm that is played by two scripts.

A real one sends them at these moments too, but only now and then.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmlab.cluster.records import write_record
from lmlab.cluster.run_state import state_of
from tests_support import composed

JOB = "import sys; from lmlab.cluster.job import run_job; run_job(sys.argv[1])"
SQUEUE = """\
echo asked >> {folder}/asked
test $(wc -l < {folder}/asked) -gt 1 || { echo "Unable to contact slurm controller" >&2; exit 1; }
kill -TERM $PPID
echo {state}
"""
SCONTROL = """\
echo "$@" >> {folder}/told
kill -TERM $PPID
kill -USR2 $PPID
"""


def environment(tmp_path: Path, state: str) -> dict[str, str]:
    """Return a job's environment; asking Slurm brings another signal, and at first no answer."""
    for name, text in {"squeue": SQUEUE, "scontrol": SCONTROL}.items():
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(
            "#!/bin/sh\n" + text.replace("{folder}", str(tmp_path)).replace("{state}", state)
        )
        script.chmod(0o755)
    own = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SUBMITIT_EXECUTOR": "slurm"}
    return os.environ | own | {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}


@pytest.mark.parametrize(
    ("state", "outcome"),
    [("RUNNING", "requeued"), ("SIGNALING", "requeued"), ("COMPLETING", "cancelled")],
)
def test_more_signals_while_it_is_requeued_change_nothing(
    tiny: list[str], tmp_path: Path, state: str, outcome: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    own = ("budget.steps=100000", "trainer.checkpoint_every=100000", "task.sample.tokens=0")
    (run / "config.yaml").write_text(composed(*tiny, *own).to_yaml())
    process = subprocess.Popen(
        [sys.executable, "-c", JOB, str(run)], env=environment(tmp_path, state)
    )
    while not (run / "metrics.jsonl").exists():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    told = tmp_path / "told"
    assert (told.read_text() if told.exists() else "") == "requeue 7\n" * (outcome == "requeued")
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["signal"]) == (outcome, "SIGTERM")
    assert not (run / "error.txt").exists()
    assert list((run / "checkpoints").glob("step_*.pt"))


def test_a_failed_job_that_waits_again_is_requeued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(tmp_path / "submission.json", {"cluster": "slurm", "job": "7", "log": "log"})
    write_record(tmp_path / "status.json", {"state": "failed", "job": "7", "error": "no room"})
    for says, name in {"PENDING": "requeued", "FAILED": "failed", "": "failed"}.items():
        monkeypatch.setattr("lmlab.cluster.slurm.states", lambda jobs, says=says: {"7": says})
        assert state_of([tmp_path])[tmp_path].name == name
