"""Submitting the runs of a sweep to Slurm as one array."""

import contextlib
import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmlab.cluster import slurm, snapshot
from lmlab.cluster.config import SlurmConfig
from lmlab.cluster.start import start
from lmlab.cluster.submission import (
    Job,
    Submission,
    partition_jobs,
    sweep_lock,
    work_folder,
    write_submission,
    written,
)
from lmlab.errors import UserError


def submit_to_slurm(jobs: Sequence[Job]) -> Submission:
    """Submit the runs that are left as one array, and return at once.

    Raises UserError, with nothing submitted and no run directory left, when Slurm refuses.
    """
    if not slurm.available():
        raise UserError(
            "there is no Slurm on this machine (sbatch is not on the PATH); "
            "choose hydra/launcher=submitit_local or hydra/launcher=local"
        )
    left, submission = partition_jobs(jobs)
    if not left:
        return submission
    with sweep_lock(jobs):
        left, submission = partition_jobs(jobs)  # another launcher may have been first
        if not left:
            return submission
        folder = work_folder(jobs)
        with written(left):
            executor = _executor(folder, left[0].config.slurm, left[0].config.name)
            cwd, code = str(Path.cwd()), pinned_code(folder, left[0].config.slurm)
            columns = [[str(j.directory) for j in left]] + [[v] * len(left) for v in (cwd, *code)]
            handles = _submitted(executor, columns)
        for handle, job in zip(handles, left, strict=True):
            submission.submitted[handle.job_id] = job
            write_submission(job, "slurm", handle.job_id, str(handle.paths.stdout))
    return submission


def pinned_code(folder: Path, config: SlurmConfig) -> tuple[str | None, str | None]:
    """Return the last two arguments of `start`: the copy of the code, or the hash it must have."""
    if config.code == "snapshot":
        return str(snapshot.take(folder / "code")), None
    return None, snapshot.digest()


def pickle_start_by_value() -> None:
    """Have `start` pickled with its code, as it must run before this package is imported."""
    import cloudpickle

    from lmlab.cluster import start as module

    cloudpickle.register_pickle_by_value(module)


def quoted_python() -> str:
    """Return this interpreter for a shell."""
    return shlex.quote(sys.executable)


def _executor(folder: Path, config: SlurmConfig, name: str) -> Any:
    import submitit

    # Signals that come while Python starts are ignored: the default would end the job, and a job
    # that exits by itself is not requeued after a preemption.
    python = """bash -c 'trap "" TERM USR2; exec "$@"' lmlab """ + quoted_python()
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


def _submitted(executor: Any, columns: Sequence[Sequence[Any]]) -> list[Any]:
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    pickle_start_by_value()
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):  # submitit prints the message of sbatch
            return list(executor.map_array(start, *columns))
    except (FailedJobError, FailedSubmissionError) as error:
        problem = printed.getvalue() or str(error)
        problem = " ".join(problem.replace("sbatch: error: ", "").split())
        raise UserError(f"sbatch refused, nothing was submitted: {problem}") from error
