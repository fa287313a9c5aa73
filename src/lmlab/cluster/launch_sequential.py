"""Running jobs in this process, one after the other."""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any

from lmlab.cluster.processes import this_process
from lmlab.cluster.records import (
    ERROR,
    is_cancelled,
    mark_cancelled,
    write_failure,
    write_status,
)
from lmlab.cluster.submission import (
    Job,
    Submission,
    is_ours,
    take_locally,
    wait_for_others,
    write_submission,
)
from lmlab.errors import UserError

TERMINATED = 128 + signal.SIGTERM
"""Exit code of a run that SIGTERM stopped."""


def run_in_sequence(jobs: Sequence[Job]) -> Submission:
    """Run the jobs that are left; a failed or cancelled one leaves the others alone.

    Ctrl-C stops all, and so does SIGTERM when it is not `lmlab sweep cancel` that sends it. Runs of
    another launcher are waited for.
    """
    left, submission = take_locally(jobs)
    if skipped := submission.skipped():
        print(", ".join(skipped), flush=True)
    for index, job in enumerate(left):
        title = f"run {index + 1} of {len(left)}: {job.settings or job.directory.name}"
        if not is_ours(job):
            print(f"{title}: cancelled", flush=True)
            continue
        print(title, flush=True)
        name = str(os.getpid())
        try:
            _run(job, name)
        except (SystemExit, KeyboardInterrupt) as stop:  # by a signal, after the run has saved
            terminated = isinstance(stop, SystemExit) and stop.code == TERMINATED
            if terminated and is_cancelled(job.directory):
                continue
            for cancelled in left[index:]:
                mark_cancelled(cancelled.directory)
            raise
        submission.submitted[f"{name}_{index}"] = job
    wait_for_others(submission.active)
    return submission


def _run(job: Job, name: str) -> None:
    """Run one job and record what comes of it; only a signal leaves as an exception."""
    from lmlab.task import run

    status: dict[str, Any] = {"job": name, **this_process()}
    before = signal.signal(signal.SIGTERM, _exit)  # `lmlab sweep cancel` sends it
    write_submission(job, "local", name, "", **this_process())
    (job.directory / ERROR).unlink(missing_ok=True)
    write_status(job.directory, "running", status)
    try:
        run(job.config, job.directory)
    except (SystemExit, KeyboardInterrupt):
        write_status(job.directory, "cancelled", status)
        raise
    except Exception as error:
        line = write_failure(job.directory, error, status)
        if not isinstance(error, UserError):
            traceback.print_exc()
        print(f"failed: {line}", file=sys.stderr, flush=True)
    else:
        write_status(job.directory, "finished", status)
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit(number: int, frame: FrameType | None) -> None:
    """Exit before or after training, where nothing needs saving."""
    sys.exit(TERMINATED)
