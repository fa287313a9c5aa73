"""Running jobs as processes of this machine, a few at a time."""

import os
import re
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from lmlab.cluster.launch_slurm import pickle_start_by_value, pinned_code, quoted_python
from lmlab.cluster.processes import start_time, this_process
from lmlab.cluster.records import is_cancelled, mark_cancelled
from lmlab.cluster.run_state import state_of
from lmlab.cluster.start import start
from lmlab.cluster.submission import (
    Job,
    Submission,
    is_ours,
    take_locally,
    wait_for_others,
    work_folder,
    write_submission,
)
from lmlab.errors import UserError

POLL = 0.2
FOREVER = 60 * 24 * 365
UUID = re.compile(r"(GPU|MIG)-[\w/-]+")
GPU = re.compile(rf"\d+|{UUID.pattern}")
"""A GPU in CUDA_VISIBLE_DEVICES: its number, its UUID or that of a MIG instance."""


def run_in_processes(jobs: Sequence[Job], parallel: int) -> Submission:
    """Run the jobs that are left, `parallel` at a time, and return when all have exited.

    A failed job leaves the others alone. Ctrl-C has every job save and stop, and starts no more.
    Runs of another launcher are waited for.
    """
    gpus = visible_gpus()
    wanted = _gpus_per_job(jobs, parallel, len(gpus))
    left, submission = take_locally(jobs)
    if left:
        config = left[0].config.slurm
        share = min(parallel, len(left)) * config.tasks_per_node
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // share)))
        folder = work_folder(jobs)
        pickle_start_by_value()
        code = pinned_code(folder, config)
        waiting = deque(left)
        running: dict[int, tuple[Any, Job]] = {}
        try:
            while waiting or running:
                for slot in range(parallel):
                    if slot in running and running[slot][0].done():
                        _print_end(running.pop(slot)[1])
                    if slot not in running and waiting:
                        job = waiting.popleft()
                        if not is_ours(job):
                            _print_end(job)
                            continue
                        own = gpus if wanted is None else gpus[slot * wanted : (slot + 1) * wanted]
                        handle = _start(job, folder, code, own)
                        running[slot] = (handle, job)
                        submission.submitted[handle.job_id] = job
                        name = job.directory.name
                        print(f"started {name} (process {handle.job_id})", flush=True)
                time.sleep(POLL)
        except KeyboardInterrupt:
            _stop([*waiting], [*running.values()])
            raise
    wait_for_others(submission.active)
    return submission


def _stop(waiting: Sequence[Job], running: Sequence[tuple[Any, Job]]) -> None:
    """Have the running jobs save and exit; mark all as cancelled."""
    for job in (*waiting, *(job for _, job in running)):
        mark_cancelled(job.directory)
    print("stopping: the jobs save and exit; the same command resumes them", flush=True)
    for handle, _ in running:
        os.kill(int(handle.job_id), signal.SIGTERM)
    for handle, job in running:
        while not handle.done():
            time.sleep(POLL)
        _print_end(job)


def _gpus_per_job(jobs: Sequence[Job], parallel: int, available: int) -> int | None:
    """Return how many GPUs each job gets, None for all; raises UserError for too many."""
    config = jobs[0].config.slurm
    if config.nodes > 1:
        raise UserError("slurm.nodes: submitit_local has this machine only, set slurm.nodes=1")
    wanted = config.gpus_per_node
    if wanted is not None and wanted * parallel > available:
        raise UserError(
            f"{parallel} jobs at a time with slurm.gpus_per_node={wanted} need {wanted * parallel} "
            f"GPUs, there are {available}; set hydra.launcher.parallel"
        )
    return wanted


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start(job: Job, folder: Path, code: tuple[str | None, str | None], gpus: list[str]) -> Any:
    import submitit

    config = job.config.slurm
    executor = submitit.LocalExecutor(folder=folder, python=quoted_python())
    executor.update_parameters(
        timeout_min=FOREVER,
        tasks_per_node=config.tasks_per_node,
        gpus_per_node=len(gpus),
        setup=config.setup,
    )
    executor.parameters["visible_gpus"] = gpus  # update_parameters refuses UUIDs
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher passes Ctrl-C on
    try:
        handle = executor.submit(start, str(job.directory), str(Path.cwd()), *code)
    finally:
        signal.signal(signal.SIGINT, before)
    name, log = handle.job_id, str(handle.paths.stdout)
    more = this_process() | {"job_start_time": start_time(name)}
    cancelled = is_cancelled(job.directory)
    write_submission(job, "local", name, log, **more)
    if cancelled:  # while the process was started
        mark_cancelled(job.directory)
        os.kill(int(name), signal.SIGTERM)
    return handle


def _print_end(job: Job) -> None:
    state = state_of([job.directory])[job.directory]
    detail = f": {state.detail}" if state.detail else ""
    print(f"{state.name} {job.directory.name}{detail}", flush=True)


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that jobs may use, without importing torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:  # CUDA, too, ignores what follows an invalid name, such as -1
        return [*takewhile(GPU.fullmatch, (name.strip() for name in chosen.split(",")))]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return _named(listed.stdout)


def _named(listed: str) -> list[str]:
    """Return the names of the GPUs in what `nvidia-smi -L` prints.

    A GPU that is divided into MIG instances, indented below it, is these instances. They have no
    numbers, and beside them GPUs are named by their UUIDs, too.
    """
    gpus: list[list[str]] = []
    for line in listed.splitlines():
        uuid = UUID.search(line)
        if line.startswith("GPU "):
            gpus.append([uuid[0] if uuid else str(len(gpus))])
        elif uuid and gpus:
            gpus[-1].append(uuid[0])
    if all(len(names) == 1 for names in gpus):
        return [str(number) for number in range(len(gpus))]
    return [name for gpu, *instances in gpus for name in instances or [gpu]]
