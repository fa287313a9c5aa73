"""The body of a job: trains in a run directory and handles interruptions."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from lmlab.cluster import slurm
from lmlab.cluster.processes import this_process
from lmlab.cluster.records import ERROR, STATUS, read_record, write_failure, write_status
from lmlab.cluster.rendezvous import meet
from lmlab.config import load_yaml
from lmlab.errors import UserError
from lmlab.layout import CONFIG
from lmlab.task import run

STOPPING = (signal.SIGTERM, signal.SIGUSR2)
"""Sent when the job is cancelled or preempted, and when its time limit is near."""
_received: list[int] = []
Outcome = Literal["finished", "requeued", "cancelled", "failed"]


def run_job(directory: str, unchanged: str | None = None) -> Outcome:
    """Start or resume the run in a directory that holds `config.yaml`.

    Slurm's signals reach every process of the job. Each saves and returns here from the same step.
    Then rank 0 requeues the job if the run is not finished. All exit by SystemExit, so that
    submitit does not record the job as completed. Any other exception is a failure of the job.
    """
    path = Path(directory)
    is_main_process = _rank() == 0
    before = read_record(path / STATUS)
    timeouts = int(before.get("timeouts", 0)) if before.get("job") == _job_name() else 0
    status: dict[str, Any] = {"job": _job_name(), **this_process(), "timeouts": timeouts}
    status["restarts"] = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    if is_main_process:
        (path / ERROR).unlink(missing_ok=True)
        write_status(path, "running", status)
    for number in STOPPING:
        signal.signal(number, _exit)
    try:
        stopped = _run(path, unchanged, status)
        if stopped is None:
            outcome: Outcome = "finished"
        elif is_main_process:
            outcome = _interrupted(path, status, stopped)
        else:
            outcome = "requeued"
    except BaseException as error:
        if is_main_process:
            write_failure(path, error, status)
        raise
    if is_main_process:
        write_status(path, outcome, status)
    if outcome == "finished":
        return outcome
    sys.exit(0)


def _run(path: Path, unchanged: str | None, status: Mapping[str, Any]) -> int | None:
    """Train; return the number of the signal that stopped it, None when it finished.

    Signals are ignored afterwards: Slurm sends a second SIGTERM while a preempted job is requeued.
    """
    try:
        try:
            _require_unchanged(unchanged)
            meet(path, status)
            run(load_yaml(path / CONFIG), path)
        finally:
            for number in STOPPING:
                signal.signal(number, signal.SIG_IGN)
    except SystemExit as exit_:
        if isinstance(exit_.code, int) and exit_.code > 128:
            return exit_.code - 128
        raise
    except KeyboardInterrupt:
        return signal.SIGINT
    except Exception:
        if not _received:
            raise
        return _received[0]  # the other processes exited before this one
    return None


def _exit(number: int, frame: FrameType | None) -> None:
    """Exit before or after training, where nothing needs saving; only the first signal counts."""
    _received.append(number)
    if len(_received) == 1:
        sys.exit(128 + number)


def _interrupted(path: Path, status: dict[str, Any], number: int) -> Outcome:
    """Requeue the job if its signal asks for it; called by rank 0 only."""
    job = slurm.this_job()
    status["signal"] = signal.Signals(number).name
    if job is None:
        return "cancelled"
    if number == signal.SIGUSR2:
        max_restarts = load_yaml(path / CONFIG).slurm.max_restarts
        if status["timeouts"] >= max_restarts:
            raise UserError(
                f"time limit reached after {max_restarts} restarts; resume with: "
                f"lmlab sweep resume {path.parent} slurm.max_restarts=N"
            )
        status["timeouts"] += 1
    else:
        # A preempted job must ask for it: exiting within the grace time counts as completed.
        # A cancelled one is COMPLETING, one requeued from outside is PENDING.
        state = slurm.state(job) or "RUNNING"  # no answer: running again is better than a lost run
        if state in slurm.WAITING:
            return "requeued"
        if state == "COMPLETING" or state not in slurm.RUNNING:
            return "cancelled"
    write_status(path, "requeued", status)  # before, as Slurm may kill this process at once
    slurm.requeue(job)
    return "requeued"


def _require_unchanged(expected: str | None) -> None:
    if expected is not None:
        from lmlab.cluster.snapshot import digest

        if digest() != expected:
            raise UserError(
                "the code has changed since this run was submitted; "
                "submit it again, or with slurm.code=snapshot"
            )


def _rank() -> int:
    return int(os.environ.get("SLURM_PROCID") or os.environ.get("SUBMITIT_LOCAL_GLOBALID") or 0)


def _job_name() -> str:
    """Return what the submission calls this job."""
    return slurm.this_job() or os.environ.get("SUBMITIT_LOCAL_JOB_ID", str(os.getpid()))
