"""The body of a job: trains in a run directory, and knows what an interruption asks for."""

import os
import signal
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from lmlab.cluster import slurm
from lmlab.cluster.processes import this_process
from lmlab.cluster.records import ERROR, STATUS, read_record, write_record
from lmlab.config import load_yaml
from lmlab.errors import UserError
from lmlab.layout import CONFIG
from lmlab.task import run

STOPPING = (signal.SIGTERM, signal.SIGUSR2)
"""Cancelled or preempted; the time limit is near."""
_received: list[int] = []
End = Literal["finished", "requeued", "cancelled", "failed"]


def run_job(directory: str, unchanged: str | None = None) -> End:
    """Run, or go on with, the run whose `config.yaml` lies in the directory.

    Slurm's signals reach every process of the job. Each saves and comes back here from the same
    step; then the first one requeues the job if the run is to go on. All leave by SystemExit, which
    keeps submitit from calling the job done. Any other exception is the job's failure.
    """
    path = Path(directory)
    first = _rank() == 0
    before = read_record(path / STATUS)
    timeouts = int(before.get("timeouts", 0)) if before.get("job") == _job_name() else 0
    status: dict[str, Any] = {"job": _job_name(), **this_process(), "timeouts": timeouts}
    status["restarts"] = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    if first:
        (path / ERROR).unlink(missing_ok=True)
        _record(path, "running", status)
    for number in STOPPING:
        signal.signal(number, _leave)
    try:
        stopped = _run(path, unchanged)
        if stopped is None:
            ended: End = "finished"
        elif first:
            ended = _interrupted(path, status, stopped)
        else:
            ended = "requeued"
    except BaseException as error:
        if first:
            status["error"] = traceback.format_exception_only(error)[-1].strip()
            (path / ERROR).write_text(traceback.format_exc(), encoding="utf-8")
            _record(path, "failed", status)
        raise
    if first:
        _record(path, ended, status)
    if ended == "finished":
        return ended
    sys.exit(0)


def _run(path: Path, unchanged: str | None) -> int | None:
    """Train; return the number of the signal that stopped it, None when it came to its end.

    From then on signals are ignored, as all that they could ask for is done: Slurm sends a second
    SIGTERM while a preempted job is requeued.
    """
    try:
        try:
            _require_unchanged(unchanged)
            _export_ranks()
            run(load_yaml(path / CONFIG), path)
        finally:
            for number in STOPPING:
                signal.signal(number, signal.SIG_IGN)
    except SystemExit as left:
        if isinstance(left.code, int) and left.code > 128:
            return left.code - 128
        raise
    except KeyboardInterrupt:
        return signal.SIGINT
    except Exception:
        if not _received:
            raise
        return _received[0]  # what a process sees when the others have left before it
    return None


def _leave(number: int, frame: FrameType | None) -> None:
    """Before and after training, where there is nothing to save; once, as leaving takes a while."""
    _received.append(number)
    if len(_received) == 1:
        sys.exit(128 + number)


def _interrupted(path: Path, status: dict[str, Any], number: int) -> End:
    """Requeue the job if that is what its signal meant; called by the first process only."""
    job = slurm.this_job()
    status["signal"] = signal.Signals(number).name
    if job is None:
        return "cancelled"
    if number == signal.SIGUSR2:
        max_restarts = load_yaml(path / CONFIG).slurm.max_restarts
        if status["timeouts"] >= max_restarts:
            raise UserError(
                f"out of time after {max_restarts} restarts; go on with: "
                f"lmlab sweep resume {path.parent} slurm.max_restarts=N"
            )
        status["timeouts"] += 1
    else:
        # Preempted: the job must ask itself, for one that ends by itself within the time of grace
        # counts as completed. A cancelled one is COMPLETING, one requeued from outside is PENDING.
        state = slurm.state(job) or "RUNNING"  # no answer: better run again than lost
        if state != "RUNNING":
            return "requeued" if state in slurm.WAITING else "cancelled"
    _record(path, "requeued", status)  # before, as Slurm may kill this process at once
    slurm.requeue(job)
    return "requeued"


def _record(path: Path, state: str, more: Mapping[str, Any]) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_record(path / STATUS, {"state": state, "time": now, **more})


def _require_unchanged(expected: str | None) -> None:
    if expected is not None:
        from lmlab.cluster.snapshot import digest

        if digest() != expected:
            raise UserError(
                "the code is no longer what it was when this run was submitted; "
                "submit it again, or with slurm.code=snapshot"
            )


def _rank() -> int:
    return int(os.environ.get("SLURM_PROCID") or os.environ.get("SUBMITIT_LOCAL_GLOBALID") or 0)


def _job_name() -> str:
    """Return what the submission calls this job."""
    return slurm.this_job() or os.environ.get("SUBMITIT_LOCAL_JOB_ID", str(os.getpid()))


def _export_ranks() -> None:
    """Tell torch.distributed about the processes of this job, as torchrun would."""
    import submitit

    if submitit.JobEnvironment().num_tasks > 1:
        environment = submitit.helpers.TorchDistributedEnvironment()
        environment.export(overwrite=True, set_cuda_visible_devices=False)
