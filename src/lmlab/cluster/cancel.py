"""Cancelling runs, by Slurm or by a signal to processes of this machine."""

import os
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmlab.cluster import slurm
from lmlab.cluster.processes import is_alive, is_here
from lmlab.cluster.records import STATUS, SUBMISSION, mark_cancelled, read_record
from lmlab.cluster.run_state import ACTIVE, state_of
from lmlab.errors import UserError


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
    launchers: set[int] = set()
    for path, record in records.items():
        if is_alive(record["pid"], None, record.get("start_time")):
            launchers.add(int(record["pid"]))
            continue
        status = read_record(path / STATUS)
        started = status.get("job") == record["job"]
        mark_cancelled(path)
        _send_signal(int(status["pid"] if started else record["job"]), signal.SIGTERM)
    for pid in launchers:
        _send_signal(pid, signal.SIGINT)  # it stops its jobs and starts no more


def _send_signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:  # exited meanwhile
        return
    except PermissionError as error:
        raise UserError(f"process {pid} belongs to another user; cancel as that user") from error


def _runs(count: int) -> str:
    return "1 run is" if count == 1 else f"{count} runs are"
