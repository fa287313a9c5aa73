"""Tasks on datatrove's executors: each phase is a pipeline of one step."""

import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lmlab.cleaning.job import Job, open_job
from lmlab.cleaning.local import usable_cores
from lmlab.cleaning.manifest import finish
from lmlab.cleaning.pipeline_config import (
    DatatroveExecutorConfig,
    RayExecutorConfig,
    SlurmExecutorConfig,
)
from lmlab.cleaning.plan import Phase, plan, run_task
from lmlab.errors import UserError
from lmlab.files import atomic_write

try:
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.executor.ray import RayPipelineExecutor
    from datatrove.executor.slurm import SlurmPipelineExecutor
    from datatrove.pipeline.base import PipelineStep
except ImportError:
    raise UserError(
        "this executor needs datatrove; install it with `pip install 'lmlab[cluster]'`"
    ) from None


class PhaseStep(PipelineStep):
    """The tasks of one phase as a datatrove step; rank r does tasks r, r + world size, ..."""

    type = "lmlab"
    name = "cleaning"

    def __init__(self, directory: str, phase: int) -> None:
        super().__init__()
        self.directory, self.phase = directory, phase

    def run(self, data: Iterable[Any], rank: int = 0, world_size: int = 1) -> Iterable[Any]:
        """Do this rank's tasks; the phase after the last one writes the manifest."""
        job = open_job(Path(self.directory))
        phases = plan(job)
        if self.phase == len(phases):
            finish(job)
            return ()
        phase = phases[self.phase]
        for task in range(rank, phase.tasks, world_size):
            run_task(job, phase, task)
        return ()


def run_datatrove(job: Job, config: DatatroveExecutorConfig | RayExecutorConfig) -> None:
    """Do all tasks of a run that are not done, on this machine or on Ray, and wait for them.

    Raises UserError when tasks failed; datatrove's logs say why.
    """
    workers = config.workers or usable_cores()
    if isinstance(config, RayExecutorConfig):
        workers = config.workers or _start_ray()
    for number, phase in enumerate(plan(job)):
        tasks = min(phase.tasks, workers)
        logs = _logs(job, phase.name)
        step = PhaseStep(str(job.directory.resolve()), number)
        shared = {"tasks": tasks, "workers": workers, "logging_dir": str(logs)}
        if isinstance(config, RayExecutorConfig):
            executor = RayPipelineExecutor(
                [step],
                **shared,
                cpus_per_task=config.cpus_per_task,
                mem_per_cpu_gb=config.mem_per_cpu_gb,
            )
        else:
            executor = LocalPipelineExecutor([step], **shared, start_method="spawn")
        try:
            executor.run()
        except OSError:
            raise
        except Exception as error:
            raise UserError(f"{phase.name} failed: {error}; see {logs}") from error
        _require_done(job, phase, logs)
    finish(job)


def submit_slurm(job: Job, config: SlurmExecutorConfig) -> list[int]:
    """Submit a job array for each phase, each after the one before, and return their ids.

    The last one writes the manifest. Submitting the run again, when none of its jobs is left,
    resumes it.
    """
    previous = None
    ids = []
    commands = _commands(job)
    phases = [(phase.name, phase.tasks) for phase in plan(job)]
    for number, (name, tasks) in enumerate([*phases, ("finish", 1)]):
        logs = _logs(job, name)
        previous = SlurmPipelineExecutor(
            [PhaseStep(str(job.directory.resolve()), number)],
            tasks=min(tasks, config.tasks),
            workers=config.workers or -1,
            time=config.time,
            partition=config.partition,
            qos=config.qos or "",
            cpus_per_task=config.cpus_per_task,
            mem_per_cpu_gb=config.mem_per_cpu_gb,
            sbatch_args=dict(config.sbatch),
            env_command=f"export PATH={shlex.quote(str(commands))}:$PATH",
            job_name=f"clean-{name}",
            logging_dir=str(logs),
            slurm_logs_folder=str(logs / "slurm"),
            depends=previous,
        )
        try:
            previous.run()
        except FileNotFoundError as error:
            raise UserError(f"executor=slurm needs Slurm: {error.filename} is not found") from None
        except subprocess.CalledProcessError as error:
            raise UserError(
                f"sbatch failed with exit code {error.returncode}; its message is above; "
                "correct executor.partition and its other keys, and start again"
            ) from None
        ids.append(int(previous.job_id))
    return ids


def _commands(job: Job) -> Path:
    """Return a folder with datatrove's commands, run by this Python whatever the job's PATH is."""
    folder = job.directory.resolve() / "logs" / "bin"
    for name in ("launch_pickled_pipeline", "merge_stats"):
        with atomic_write(folder / name) as file:
            python = shlex.quote(sys.executable)
            file.write(f'#!/bin/sh\nexec {python} -m datatrove.tools.{name} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def _start_ray() -> int:
    """Connect to Ray, or start it on this machine, and return its number of cores."""
    try:
        import ray
    except ImportError:
        raise UserError(
            "executor=ray needs ray; install it with `pip install 'lmlab[cluster]'`"
        ) from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _logs(job: Job, phase: str) -> Path:
    """Return a fresh folder: what datatrove notes there is not what is done, our records are."""
    return job.directory.resolve() / "logs" / f"{phase}-{time.time_ns()}"


def _require_done(job: Job, phase: Phase, logs: Path) -> None:
    missing = [task for task in range(phase.tasks) if not job.is_done(phase.name, task)]
    if missing:
        raise UserError(
            f"{phase.name}: {len(missing):,} of {phase.tasks:,} tasks failed, see {logs}; "
            "start again to resume"
        )
