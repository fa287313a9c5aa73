"""The launchers: in this process, in processes beside it, on Slurm."""

import time
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus, filter_overrides

from hydra_plugins.lmlab_launcher.composition import checked_jobs
from lmlab.cluster.submission import Job, Submission

Batch = Sequence[Sequence[str]]


class _Launcher(BasicLauncher):
    def jobs(self, batch: Batch, first: int) -> list[Job]:
        """Compose and check every job; raises UserError before anything is started."""
        assert self.hydra_context is not None
        assert self.config is not None
        return checked_jobs(self.hydra_context.config_loader, self.config, batch, first)


class LocalLauncher(_Launcher):
    """Runs the jobs of a sweep in this process, one after the other."""

    def launch(self, job_overrides: Batch, initial_job_idx: int) -> Sequence[JobReturn]:
        """Check every job's configuration, then run them; raises UserError before any starts."""
        self.jobs(job_overrides, initial_job_idx)
        returns: list[JobReturn] = []
        for index, overrides in enumerate(job_overrides):
            text = " ".join(filter_overrides(overrides))
            print(f"run {index + 1} of {len(job_overrides)}: {text}", flush=True)
            returns += super().launch([overrides], initial_job_idx + index)
        return returns


class SubmititLocal(_Launcher):
    """Runs the jobs of a sweep in processes of their own, `parallel` at a time."""

    def __init__(self, parallel: int) -> None:
        super().__init__()
        self.parallel = parallel

    def launch(self, job_overrides: Batch, initial_job_idx: int) -> Sequence[JobReturn]:
        """Check every job, run what is not finished yet, and return when all have ended."""
        from lmlab.cluster.local import run_here
        from lmlab.errors import ConfigError

        if self.parallel < 1:
            raise ConfigError("hydra.launcher.parallel", f"must be > 0, got {self.parallel}")
        jobs = self.jobs(job_overrides, initial_job_idx)
        submission = run_here(jobs, self.parallel)
        _report(submission, jobs)
        _require_success(jobs)
        return _returns(job_overrides)


class SubmititSlurm(_Launcher):
    """Submits the jobs of a sweep as one array, and returns at once or, with `wait`, at its end."""

    def __init__(self, wait: bool) -> None:
        super().__init__()
        self.wait = wait

    def launch(self, job_overrides: Batch, initial_job_idx: int) -> Sequence[JobReturn]:
        """Check every job, submit what is not finished, queued or running."""
        from lmlab.cluster.submission import submit_to_slurm

        jobs = self.jobs(job_overrides, initial_job_idx)
        submission = submit_to_slurm(jobs)
        _report(submission, jobs)
        if self.wait:
            _wait(jobs)
            _require_success(jobs)
        return _returns(job_overrides)


def _report(submission: Submission, jobs: Sequence[Job]) -> None:
    import os

    for name, job in submission.submitted.items():
        print(f"  {name}: {job.settings or job.config.name}")
    folder = os.path.relpath(Path(os.path.commonpath([job.directory.parent for job in jobs])))
    print(f"{submission.summary()}; watch with: lmlab runs {folder} --watch", flush=True)


def _wait(jobs: Sequence[Job]) -> None:
    """Return when no job is queued or running any more, saying what becomes of each."""
    from lmlab.cluster.status import ACTIVE, state_of

    pending = {job.directory for job in jobs}
    pause = 1.0
    while pending:
        for directory, state in state_of(sorted(pending)).items():
            if state.name not in ACTIVE:
                pending.discard(directory)
                print(f"{state.name} {directory.name} {state.detail}".rstrip(), flush=True)
        if pending:
            time.sleep(pause)
            pause = min(10.0, pause * 1.2)


def _require_success(jobs: Sequence[Job]) -> None:
    from lmlab.cluster.status import OVER, state_of
    from lmlab.errors import UserError

    states = state_of([job.directory for job in jobs])
    bad = [f"{path.name} {state.name}" for path, state in states.items() if state.name not in OVER]
    if bad:
        raise UserError(f"{len(bad)} of {len(states)} runs did not finish: {', '.join(bad)}")


def _returns(batch: Batch) -> Sequence[JobReturn]:
    return [
        JobReturn(overrides=list(o), status=JobStatus.COMPLETED, _return_value=None) for o in batch
    ]
