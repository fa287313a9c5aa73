"""Tasks on the processes of this machine, with progress."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import Any

from lmlab.cleaning.job import Job, open_job
from lmlab.cleaning.plan import Phase, plan, run_task
from lmlab.errors import UserError, explain_os_error
from lmlab.io.progress import bar

_POLL = 0.2
_shared: "tuple[Synchronized[int], Synchronized[int]] | None" = None


def run_local(job: Job, workers: int | None, *, progress: bool) -> None:
    """Do all tasks of a run that are not done, `workers` at a time; None: one a core.

    Raises UserError when a process was killed, or for a mistake that one found.
    """
    count = workers or usable_cores()
    phases = plan(job)
    waiting = [[t for t in range(p.tasks) if not job.is_done(p.name, t)] for p in phases]
    count = max(1, min(count, max(map(len, waiting))))
    # Fresh processes: a fork would copy the threads' locks of this one.
    context = multiprocessing.get_context("spawn")
    shared = context.Value("q", 0), context.Value("q", 0)
    stop = context.Event()
    pool = ProcessPoolExecutor(count, context, _initialize, (shared, stop))
    try:
        for number, (phase, tasks) in enumerate(zip(phases, waiting, strict=True)):
            if tasks:
                work = partial(_work, str(job.directory), number)
                _run_phase(pool, job, phase, tasks, work, shared, progress)
    except BaseException:
        stop.set()  # the tasks at work are given up; what they wrote has no name yet
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _run_phase(
    pool: ProcessPoolExecutor,
    job: Job,
    phase: Phase,
    tasks: Sequence[int],
    work: Callable[[int], str | None],
    shared: "tuple[Synchronized[int], Synchronized[int]]",
    progress: bool,
) -> None:
    for value in shared:
        value.value = 0
    by_bytes = phase.name.startswith("0-clean")
    total = sum(job.inputs[task].size for task in tasks) if by_bytes else len(tasks)
    shown = bar(phase.name, total, progress, unit="B" if by_bytes else " tasks")
    start, finished = time.monotonic(), 0
    with shown:
        futures: set[Future[str | None]] = {pool.submit(work, task) for task in tasks}
        while futures:
            done, futures = wait(futures, _POLL, FIRST_COMPLETED)
            finished += len(done)
            documents, size = (value.value for value in shared)
            if documents:
                rate = documents / (time.monotonic() - start)
                shown.set_postfix_str(f"{documents:,} documents, {rate:,.0f}/s", refresh=False)
            shown.update(min(size, total) - shown.n if by_bytes else finished - shown.n)
            for future in done:
                _check(future)
        shown.update(total - shown.n)


def _check(future: "Future[str | None]") -> None:
    try:
        problem = future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, perhaps because the memory was full; start again to "
            "resume, with a lower executor.workers or read.max_document_bytes"
        ) from None
    if problem is not None:
        raise UserError(problem)


def _initialize(shared: Any, stop: Event) -> None:
    global _shared
    _shared = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process decides
    threading.Thread(target=_exit_with_parent, args=(stop, os.getppid()), daemon=True).start()


def _exit_with_parent(stop: Event, parent: int) -> None:
    """End this process when the run is given up, or its parent was killed."""
    while os.getppid() == parent and not stop.is_set():
        time.sleep(_POLL)
    os._exit(1)


def _work(directory: str, phase: int, task: int) -> str | None:
    """Do a task in a worker process; return one line for a user's mistake."""
    from pathlib import Path

    job = open_job(Path(directory))
    try:
        run_task(job, plan(job)[phase], task, _advance)
    except UserError as error:
        return str(error)
    except OSError as error:
        explained = explain_os_error(error)
        if explained is None:
            raise
        return f"{explained}; mend this and start again to resume"
    return None


def _advance(documents: int, size: int) -> None:
    if _shared is not None:
        for value, more in zip(_shared, (documents, size), strict=True):
            if more:
                with value.get_lock():
                    value.value += more
