"""Running jobs as processes of this machine, a few at a time."""

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmlab.cluster.processes import born, this_process
from lmlab.cluster.records import note_cancelled
from lmlab.cluster.start import start
from lmlab.cluster.status import state_of
from lmlab.cluster.submission import (
    Job,
    Submission,
    pickled_by_value,
    pinned,
    sort_out,
    submitit_python,
    work_folder,
    write_submission,
    written,
)
from lmlab.errors import UserError

POLL = 0.2
FOREVER = 60 * 24 * 365


def run_here(jobs: Sequence[Job], parallel: int) -> Submission:
    """Run what is still to be done, `parallel` jobs at a time, and return when all have ended.

    Ctrl-C has every job save and stop, and starts no more.
    """
    todo, submission = sort_out(jobs)
    if not todo:
        return submission
    config = todo[0].config.slurm
    if config.nodes > 1:
        raise UserError("slurm.nodes: submitit_local has this machine only, set slurm.nodes=1")
    gpus = _visible_gpus()
    wanted = config.gpus_per_node
    if wanted is not None and wanted * parallel > len(gpus):
        raise UserError(
            f"{parallel} jobs at a time with slurm.gpus_per_node={wanted} need {wanted * parallel} "
            f"GPUs, there are {len(gpus)}; set hydra.launcher.parallel"
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = (cores or 1) // (min(parallel, len(todo)) * config.tasks_per_node)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, threads)))  # or they fight over the cores
    folder = work_folder(todo)
    folder.mkdir(parents=True, exist_ok=True)
    pickled_by_value()
    with written(todo):
        code = pinned(folder, config)
        for job in todo:
            _submission(job, "", "")
    waiting = deque(todo)
    running: dict[int, tuple[Any, Job]] = {}
    try:
        while waiting or running:
            for slot in range(parallel):
                if slot in running and running[slot][0].done():
                    _say_end(running.pop(slot)[1])
                if slot not in running and waiting:
                    job = waiting.popleft()
                    own = gpus if wanted is None else gpus[slot * wanted : (slot + 1) * wanted]
                    handle = _start(job, folder, code, own)
                    running[slot] = (handle, job)
                    submission.submitted[handle.job_id] = job
                    print(f"started {job.directory.name} (process {handle.job_id})", flush=True)
            time.sleep(POLL)
    except KeyboardInterrupt:
        for job in (*waiting, *(job for _, job in running.values())):
            note_cancelled(job.directory)
        print("stopping: the jobs save and end; the same command goes on", flush=True)
        for handle, _ in running.values():
            os.kill(int(handle.job_id), signal.SIGTERM)
        for handle, job in running.values():
            while not handle.done():
                time.sleep(POLL)
            _say_end(job)
        raise
    return submission


def _start(job: Job, folder: Path, code: tuple[str | None, str | None], gpus: list[int]) -> Any:
    import submitit

    config = job.config.slurm
    executor = submitit.LocalExecutor(folder=folder, python=submitit_python())
    executor.update_parameters(
        timeout_min=FOREVER,
        tasks_per_node=config.tasks_per_node,
        gpus_per_node=len(gpus),
        visible_gpus=gpus,
        setup=config.setup,
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the jobs by way of us
    try:
        handle = executor.submit(start, str(job.directory), str(Path.cwd()), *code)
    finally:
        signal.signal(signal.SIGINT, before)
    _submission(job, handle.job_id, str(handle.paths.stdout))
    return handle


def _submission(job: Job, name: str, log: str) -> None:
    write_submission(
        job, "local", name, log, **this_process(), job_born=born(name) if name else None
    )


def _say_end(job: Job) -> None:
    state = state_of([job.directory])[job.directory]
    detail = f": {state.detail}" if state.detail else ""
    print(f"{state.name} {job.directory.name}{detail}", flush=True)


def _visible_gpus() -> list[int]:
    """Return the GPUs that jobs may use, without importing torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [int(gpu) for gpu in chosen.split(",") if gpu.strip().isdigit()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return list(range(sum(line.startswith("GPU ") for line in listed.stdout.splitlines())))
