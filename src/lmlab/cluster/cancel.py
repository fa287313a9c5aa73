"""Cancelling runs, by Slurm or by a signal to processes of this machine."""

import os
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmlab.cluster import slurm
from lmlab.cluster.processes import is_alive, is_here
from lmlab.cluster.records import STATUS, SUBMISSION, WORK, mark_cancelled, read_record
from lmlab.cluster.run_state import ACTIVE, state_of
from lmlab.errors import UserError
from lmlab.runs.read import find_runs


def cancel_runs(runs: Sequence[Path]) -> tuple[int, list[str]]:
    """Cancel what is queued or running; running ones save first.

    Returns the number of cancelled runs, and a line for each group that could not be reached.
    """
    states = state_of(runs)
    active = {path: read_record(path / SUBMISSION) for path in runs if states[path].name in ACTIVE}
    on_slurm = [path for path, record in active.items() if record.get("cluster") == "slurm"]
    if on_slurm:
        if not slurm.available():
            raise UserError("these runs are on Slurm, and there is no scancel on this machine")
        slurm.cancel(active[path]["job"] for path in on_slurm)
        for path in on_slurm:
            mark_cancelled(path)
    local = {path: record for path, record in active.items() if record.get("cluster") == "local"}
    here = {path: record for path, record in local.items() if is_here(record["host"])}
    _cancel_here(here)
    hosts = Counter(str(local[path]["host"]) for path in local.keys() - here.keys())
    unreached = [f"{_runs(n)} on {host}: cancel there" for host, n in sorted(hosts.items())]
    if by_hand := len(active) - len(on_slurm) - len(local):
        unreached.append(f"{_runs(by_hand)} not submitted: press Ctrl-C where it was started")
    return len(on_slurm) + len(here), unreached


def _cancel_here(records: Mapping[Path, Mapping[str, Any]]) -> None:
    launchers: dict[int, set[Path]] = {}
    for path, record in records.items():
        if is_alive(record["pid"], None, record.get("start_time")):
            launchers.setdefault(int(record["pid"]), set()).add(path.resolve())
        else:
            _cancel_run(path)
    for pid, paths in launchers.items():
        if _active_runs(pid, next(iter(paths))) <= paths:
            _send_signal(pid, signal.SIGINT)  # it stops its jobs and starts no more
        else:
            for path in sorted(paths):
                _cancel_run(path)


def _active_runs(launcher: int, run: Path) -> set[Path]:
    """Return the queued and running runs of the launcher that has started, or will start, `run`."""
    sweep = next((folder for folder in run.parents if (folder / WORK).is_dir()), run.parent)
    states = state_of(find_runs(sweep))
    active = {path: read_record(path / SUBMISSION) for path in states if states[path].active}
    return {
        path
        for path, record in active.items()
        if record.get("pid") == launcher and is_here(record.get("host"))
    }


def _cancel_run(path: Path) -> None:
    """Have one run save and exit; its launcher, if there is one, does not start it any more."""
    mark_cancelled(path)
    job, status = read_record(path / SUBMISSION)["job"], read_record(path / STATUS)
    if job:
        _send_signal(int(status["pid"] if status.get("job") == job else job), signal.SIGTERM)


def _send_signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:  # exited meanwhile
        return
    except PermissionError as error:
        raise UserError(f"process {pid} belongs to another user; cancel as that user") from error


def _runs(count: int) -> str:
    return "1 run is" if count == 1 else f"{count} runs are"
