"""What all launchers share: the jobs of a sweep, which of them are left to run, and their records.

Several launchers may start the same sweep at once. Each holds the sweep's lock while it looks which
runs are left and records that it takes them, so that every run is taken once.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from lmlab.cluster.records import SUBMISSION, WORK, read_record, write_record
from lmlab.cluster.run_state import ACTIVE, FINISHED, state_of
from lmlab.config import RunConfig, difference, load_yaml
from lmlab.errors import UserError
from lmlab.files import atomic_write
from lmlab.layout import CONFIG

Cluster = Literal["slurm", "local"]
LOCK = "lock"
POLL, LONGEST_POLL = 0.5, 10.0
"""Seconds between two looks at runs of another process."""


@dataclass(frozen=True)
class Job:
    """A run to submit."""

    directory: Path
    config: RunConfig
    settings: str
    """What the sweep sets for this run alone, as overrides."""


@dataclass
class Submission:
    """The outcome of a submission."""

    submitted: dict[str, Job] = field(default_factory=dict)
    """By the job's name on the cluster."""
    finished: list[Job] = field(default_factory=list)
    """Finished before."""
    active: list[Job] = field(default_factory=list)
    """Queued or running before."""

    def summary(self) -> str:
        """Return one line of text."""
        parts = [f"submitted {_runs(len(self.submitted))}"]
        if self.submitted:
            array = next(iter(self.submitted)).partition("_")[0]
            parts[0] += f" as job {array}"
        return ", ".join([*parts, *self.skipped()])

    def skipped(self) -> list[str]:
        """Return why runs were not submitted, one text for each reason."""
        reasons = [(self.finished, "finished before"), (self.active, "queued or running already")]
        return [f"{_runs(len(jobs))} {reason}" for jobs, reason in reasons if jobs]


def partition_jobs(jobs: Sequence[Job]) -> tuple[list[Job], Submission]:
    """Return the runs that are left, and the others as a submission; writes nothing.

    Raises UserError for the directory of another run, and when slurm.* varies.
    """
    for job in jobs:
        saved = job.directory / CONFIG
        changes = difference(load_yaml(saved), job.config) if saved.exists() else ""
        if changes:
            raise UserError(
                f"{os.path.relpath(job.directory)} was started with another configuration "
                f"({changes}); give the sweep another name=, or remove that directory"
            )
    by_directory = {job.directory: job for job in jobs}
    left: list[Job] = []
    submission = Submission()
    states = state_of(list(by_directory))
    for directory, job in by_directory.items():
        state = states[directory].name
        if state in FINISHED:
            submission.finished.append(job)
        elif state in ACTIVE:
            submission.active.append(job)
        else:
            left.append(job)
    directories = {job.directory for job in left}
    settings = {job.config.slurm.model_dump_json() for job in jobs if job.directory in directories}
    if len(settings) > 1:
        raise UserError("slurm.* cannot vary within a sweep: its runs are submitted as one array")
    return left, submission


@contextlib.contextmanager
def sweep_lock(jobs: Sequence[Job]) -> Iterator[None]:
    """Hold the lock of the sweep; a second launcher waits for the seconds that the first needs."""
    folder = work_folder(jobs)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        yield


def take_locally(jobs: Sequence[Job]) -> tuple[list[Job], Submission]:
    """Write the directories of the runs that are left and record that this process runs them."""
    from lmlab.cluster.processes import this_process

    left, submission = partition_jobs(jobs)
    if left:
        with sweep_lock(jobs):
            left, submission = partition_jobs(jobs)  # another launcher may have been first
            with written(left):
                for job in left:
                    write_submission(job, "local", "", "", **this_process())
    return left, submission


def is_ours(job: Job) -> bool:
    """Return whether this process still has to run the job: nobody cancelled it or took it."""
    record = read_record(job.directory / SUBMISSION)
    return record.get("pid") == os.getpid() and not record.get("cancelled")


def wait_for_others(jobs: Sequence[Job]) -> None:
    """Return when none of the runs, which other launchers run, is queued or running any more."""
    pending, pause = {job.directory for job in jobs}, POLL
    while pending := {path for path, state in state_of(sorted(pending)).items() if state.active}:
        if pause == POLL:
            print(f"waiting for {_runs(len(pending))} of {_owner(min(pending))}", flush=True)
        time.sleep(pause)
        pause = min(LONGEST_POLL, pause * 1.2)


def _owner(directory: Path) -> str:
    record = read_record(directory / SUBMISSION)
    if not record:
        return "another process"
    if record["cluster"] == "slurm":
        return f"job {record['job']}"
    return f"process {record['pid']} on {record['host']}"


def work_folder(jobs: Sequence[Job]) -> Path:
    """Return the folder for lock, scripts, logs and copies of the code, beside the runs."""
    return Path(os.path.commonpath([job.directory.parent for job in jobs])) / WORK


def write_submission(job: Job, cluster: Cluster, name: str, log: str, **more: Any) -> None:
    """Record in the run directory which job runs it."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    values = {"cluster": cluster, "job": name, "log": log, "time": now, "cwd": str(Path.cwd())}
    write_record(job.directory / SUBMISSION, values | more)


@contextlib.contextmanager
def written(jobs: Sequence[Job]) -> Iterator[None]:
    """Write the configurations that the jobs will read; remove new directories on an error."""
    new: list[Path] = []
    try:
        for job in jobs:
            if not (job.directory / CONFIG).exists():
                new.append(job.directory)
                job.directory.mkdir(parents=True, exist_ok=True)
            with atomic_write(job.directory / CONFIG, durable=False) as file:
                file.write(job.config.to_yaml())
        yield
    except BaseException:
        for directory in new:
            shutil.rmtree(directory, ignore_errors=True)
        raise


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"
