"""Submitting runs: every directory written first, then one array; finished runs are left alone."""

import contextlib
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from lmlab.cluster import slurm, snapshot
from lmlab.cluster.config import SlurmConfig
from lmlab.cluster.records import SUBMISSION, WORK, write_record
from lmlab.cluster.start import start
from lmlab.cluster.status import ACTIVE, OVER, state_of
from lmlab.config import RunConfig, difference, load_yaml
from lmlab.errors import UserError
from lmlab.files import atomic_write
from lmlab.layout import CONFIG

Cluster = Literal["slurm", "local"]


@dataclass(frozen=True)
class Job:
    """A run to submit."""

    directory: Path
    config: RunConfig
    settings: str
    """How it differs from the others, for people."""


@dataclass
class Submission:
    """What came of submitting."""

    submitted: dict[str, Job] = field(default_factory=dict)
    """By Slurm's name of the job."""
    over: list[Job] = field(default_factory=list)
    """Finished before."""
    active: list[Job] = field(default_factory=list)
    """Queued or running before."""

    def summary(self) -> str:
        """Return one line of text."""
        parts = [f"submitted {_runs(len(self.submitted))}"]
        if self.submitted:
            names = list(self.submitted)
            array = names[0].partition("_")[0]
            parts[0] += f" as job {array}"
        if self.over:
            parts.append(f"{_runs(len(self.over))} finished before")
        if self.active:
            parts.append(f"{_runs(len(self.active))} queued or running already")
        return ", ".join(parts)


def sort_out(jobs: Sequence[Job]) -> tuple[list[Job], Submission]:
    """Return the runs still to be done, and the others; refuses directories of other runs."""
    for job in jobs:
        saved = job.directory / CONFIG
        changes = difference(load_yaml(saved), job.config) if saved.exists() else ""
        if changes:
            raise UserError(
                f"{_short(job.directory)} was started with another configuration ({changes}); "
                "give the sweep another name=, or remove that directory"
            )
    by_directory = {job.directory: job for job in jobs}
    todo: list[Job] = []
    done = Submission()
    states = state_of(list(by_directory))
    for directory, job in by_directory.items():
        state = states[directory].name
        (done.over if state in OVER else done.active if state in ACTIVE else todo).append(job)
    left = {job.directory for job in todo}
    settings = {job.config.slurm.model_dump_json() for job in jobs if job.directory in left}
    if len(settings) > 1:
        raise UserError("slurm.* cannot vary within a sweep: its runs are submitted as one array")
    return todo, done


def submit_to_slurm(jobs: Sequence[Job]) -> Submission:
    """Submit what is still to be done as one array, and return at once.

    Raises UserError, with nothing submitted and nothing left behind, when Slurm refuses.
    """
    if not slurm.available():
        raise UserError(
            "there is no Slurm on this machine (sbatch is not on the PATH); "
            "take hydra/launcher=submitit_local or hydra/launcher=local"
        )
    todo, submission = sort_out(jobs)
    if not todo:
        return submission
    folder = work_folder(todo)
    with written(todo):
        executor = _executor(folder, todo[0].config.slurm, todo[0].config.name)
        cwd, code = str(Path.cwd()), pinned(folder, todo[0].config.slurm)
        columns = [[str(j.directory) for j in todo]] + [[v] * len(todo) for v in (cwd, *code)]
        handles = _submitted(executor, columns)
    for handle, job in zip(handles, todo, strict=True):
        submission.submitted[handle.job_id] = job
        write_submission(job, "slurm", handle.job_id, str(handle.paths.stdout))
    return submission


def work_folder(jobs: Sequence[Job]) -> Path:
    """Return the folder for scripts, logs and copies of the code, beside the run directories."""
    return Path(os.path.commonpath([job.directory.parent for job in jobs])) / WORK


def pinned(folder: Path, config: SlurmConfig) -> tuple[str | None, str | None]:
    """Return the last two arguments of `start`: the copy of the code, or the hash it must have."""
    if config.code == "snapshot":
        return str(snapshot.take(folder / "code")), None
    return None, snapshot.digest()


def pickled_by_value() -> None:
    """Have `start` pickled with its code, as it must run before this package is imported."""
    import cloudpickle

    from lmlab.cluster import start as module

    cloudpickle.register_pickle_by_value(module)


def write_submission(job: Job, cluster: Cluster, name: str, log: str, **more: Any) -> None:
    """Record in the run directory which job runs it."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    values = {"cluster": cluster, "job": name, "log": log, "time": now, "cwd": str(Path.cwd())}
    write_record(job.directory / SUBMISSION, values | more)


@contextlib.contextmanager
def written(jobs: Sequence[Job]) -> Iterator[None]:
    """Write the configurations that the jobs will read; take new directories back on an error."""
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


def _executor(folder: Path, config: SlurmConfig, name: str) -> Any:
    import submitit

    folder.mkdir(parents=True, exist_ok=True)
    # Signals that come while Python starts are ignored: the default would end the job, and a job
    # that ends by itself is not requeued after a preemption.
    python = """bash -c 'trap "" TERM USR2; exec "$@"' lmlab """ + submitit_python()
    executor = submitit.SlurmExecutor(folder=folder, python=python)
    values = config.model_dump(exclude={"timeout_min", "tasks_per_node", "mem_gb", "extra", "code"})
    del values["max_restarts"]
    values |= {"time": config.timeout_min, "ntasks_per_node": config.tasks_per_node}
    values |= {"job_name": name, "setup": config.setup or None}
    if config.mem_gb is not None:
        values["mem"] = f"{round(config.mem_gb * 1024)}M"
    values["srun_args"] = ["--kill-on-bad-exit=1"]
    values["additional_parameters"] = {"requeue": True, **config.extra}
    executor.update_parameters(**{k: v for k, v in values.items() if v is not None})
    return executor


def submitit_python() -> str:
    """Return this interpreter for a shell."""
    import shlex
    import sys

    return shlex.quote(sys.executable)


def _submitted(executor: Any, columns: Sequence[Sequence[Any]]) -> list[Any]:
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    pickled_by_value()
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):  # submitit prints what sbatch said
            return list(executor.map_array(start, *columns))
    except (FailedJobError, FailedSubmissionError) as error:
        problem = " ".join((said.getvalue() or str(error)).replace("sbatch: error: ", "").split())
        raise UserError(f"sbatch refused, nothing was submitted: {problem}") from error


def _short(path: Path) -> str:
    return os.path.relpath(path)


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"
