"""The launchers: in this process, in separate processes, on Slurm."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from lmlab.cluster.submission import Job, Submission

Batch = Sequence[Sequence[str]]


class _Launcher(Launcher):
    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what composes the jobs."""
        self.loader, self.config = hydra_context.config_loader, config

    def jobs(self, batch: Batch, first: int) -> "list[Job]":
        """Compose and check every job; raises UserError before anything is started."""
        from hydra_plugins.lmlab_launcher._composition import checked_jobs
        from lmlab.refused import check_directory

        check_directory(self.config.hydra.overrides.hydra, multirun=True)
        return checked_jobs(self.loader, self.config, batch, first)


class LocalLauncher(_Launcher):
    """Runs the jobs of a sweep in this process, one after the other."""

    def launch(self, job_overrides: Batch, initial_job_idx: int) -> Sequence[JobReturn]:
        """Check every job, run those that are left; raises UserError when some did not finish."""
        from lmlab.cluster.launch_sequential import run_in_sequence
        from lmlab.refused import check_slurm

        jobs = self.jobs(job_overrides, initial_job_idx)
        check_slurm(job_overrides[0])
        run_in_sequence(jobs)
        _require_success(jobs)
        return _returns(job_overrides)


class ShowLauncher(_Launcher):
    """Prints the configuration of every job as a YAML document, and runs none."""

    def launch(self, job_overrides: Batch, initial_job_idx: int) -> Sequence[JobReturn]:
        """Check every job and print it."""
        jobs = self.jobs(job_overrides, initial_job_idx)
        for number, job in enumerate(jobs, 1):
            where = os.path.relpath(job.directory)
            print(f"--- # run {number} of {len(jobs)}: {where}\n{job.config.to_yaml()}", end="")
        return _returns(job_overrides)


class SubmititLocal(_Launcher):
    """Runs the jobs of a sweep in separate processes, `parallel` at a time."""

    def __init__(self, parallel: int) -> None:
        super().__init__()
        self.parallel = parallel

    def launch(self, job_overrides: Batch, initial_job_idx: int) -> Sequence[JobReturn]:
        """Check every job, run those that are left, and return when all have exited."""
        from lmlab.cluster.launch_processes import run_in_processes
        from lmlab.errors import ConfigError
        from lmlab.refused import READ_HERE, check_slurm

        if self.parallel < 1:
            raise ConfigError("hydra.launcher.parallel", f"must be > 0, got {self.parallel}")
        jobs = self.jobs(job_overrides, initial_job_idx)
        check_slurm(job_overrides[0], READ_HERE)
        submission = run_in_processes(jobs, self.parallel)
        _report(submission, jobs)
        _require_success(jobs)
        return _returns(job_overrides)


class SubmititSlurm(_Launcher):
    """Submits the jobs of a sweep as one array; with `wait`, returns when all have exited."""

    def __init__(self, wait: bool) -> None:
        super().__init__()
        self.wait = wait

    def launch(self, job_overrides: Batch, initial_job_idx: int) -> Sequence[JobReturn]:
        """Check every job, submit what is not finished, queued or running."""
        from lmlab.cluster.launch_slurm import submit_to_slurm
        from lmlab.cluster.submission import wait_for_others

        jobs = self.jobs(job_overrides, initial_job_idx)
        submission = submit_to_slurm(jobs)
        _report(submission, jobs)
        if self.wait:
            wait_for_others(jobs)
            _require_success(jobs)
        return _returns(job_overrides)


def _report(submission: "Submission", jobs: "Sequence[Job]") -> None:
    for name, job in submission.submitted.items():
        print(f"  {name}: {job.settings or job.config.name}")
    folder = os.path.relpath(Path(os.path.commonpath([job.directory.parent for job in jobs])))
    print(f"{submission.summary()}; watch with: lmlab runs {folder} --watch", flush=True)


def _require_success(jobs: "Sequence[Job]") -> None:
    """Print a line for each run that did not finish, and raise UserError with their number."""
    from lmlab.cluster.run_state import FINISHED, state_of
    from lmlab.errors import UserError

    states = state_of([job.directory for job in jobs])
    lines = [
        f"  {path.name} {state.name}" + (f": {state.detail}" if state.detail else "")
        for path, state in states.items()
        if state.name not in FINISHED
    ]
    for line in lines:
        print(line, file=sys.stderr)
    if lines:
        raise UserError(
            f"{len(lines)} of {len(states)} runs did not finish, see above; "
            "start the sweep again for them"
        )


def _returns(batch: Batch) -> Sequence[JobReturn]:
    return [
        JobReturn(overrides=list(o), status=JobStatus.COMPLETED, _return_value=None) for o in batch
    ]
