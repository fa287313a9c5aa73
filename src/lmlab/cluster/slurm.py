"""Asking Slurm, and telling it, by its own commands."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterable

from lmlab.errors import UserError

WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
RUNNING = {"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STAGE_OUT", "STOPPED", "RESIZING"}
RUNNING |= {"SIGNALING"}  # for the moment in which Slurm sends a signal
ATTEMPTS = 4
"""A second apart, so that they fit into the shortest time of grace."""
GRACE = 10.0
"""Seconds that all attempts have together: a job asks twice, and is killed after 30 (KillWait)."""
ANSWER_TIMEOUT = 30.0
"""Seconds that a person waits for an answer; Slurm itself gives up after 10 (MessageTimeout)."""


def available() -> bool:
    """Whether this machine can submit to a Slurm cluster."""
    return shutil.which("sbatch") is not None and shutil.which("squeue") is not None


def this_job() -> str | None:
    """Return this process's job: `<array>_<index>` for an element of an array.

    Its plain number will not do: that of the last element is the whole array's.
    """
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID")


def states(jobs: Iterable[str]) -> dict[str, str] | None:
    """Return the states of the jobs that Slurm still knows, by job; ended ones stay for a while.

    None when it cannot be asked: there is none here, or it does not answer.
    """
    wanted = set(jobs)
    if not available():
        return None
    arrays = ",".join(sorted({job.partition("_")[0] for job in wanted}))
    done = _ask(
        "squeue", "--noheader", "--array", "--states=all", f"--jobs={arrays}", "-o", "%i %T"
    )
    if done.returncode and "Invalid job id" not in done.stderr:
        return None
    pairs = (line.split() for line in done.stdout.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[0] in wanted}


def state(job: str) -> str:
    """Return the state of one job, or an empty string when Slurm does not say."""
    return _insist("squeue", "--noheader", f"--jobs={job}", "-o", "%T").stdout.strip()


def requeue(job: str) -> None:
    """Put a running job back into the queue; raises UserError when Slurm refuses."""
    done = _insist("scontrol", "requeue", job)
    if done.returncode:
        raise UserError(f"scontrol requeue {job}: {_problem(done)}")


def cancel(jobs: Iterable[str]) -> None:
    """Cancel jobs; raises UserError when Slurm refuses."""
    done = _ask("scancel", *sorted(jobs))
    if done.returncode:
        raise UserError(f"scancel: {_problem(done)}")


def _ask(*command: str, seconds: float = ANSWER_TIMEOUT) -> "subprocess.CompletedProcess[str]":
    """Run a command of Slurm's; one that gives no answer in time has failed."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {seconds:.0f} s")


def _insist(*command: str) -> "subprocess.CompletedProcess[str]":
    """Ask again when it fails, as a busy controller may: a job that leaves has no second chance."""
    end = time.monotonic() + GRACE
    for _ in range(ATTEMPTS - 1):
        done = _ask(*command, seconds=end - time.monotonic())
        if done.returncode == 0 or time.monotonic() + 1 > end:
            return done
        time.sleep(1)
    return _ask(*command, seconds=end - time.monotonic())


def _problem(done: "subprocess.CompletedProcess[str]") -> str:
    return " ".join(done.stderr.split()) or f"exit code {done.returncode}"
