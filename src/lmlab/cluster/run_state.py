"""The state of runs, from the records in their directories and from Slurm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from lmlab.cluster import slurm
from lmlab.cluster.processes import is_alive, is_here, start_time
from lmlab.cluster.records import STATUS, SUBMISSION, read_record
from lmlab.runs.run import ENVIRONMENT, RESULT

Name = Literal[
    "queued",
    "running",
    "requeued",
    "finished",
    "diverged",
    "failed",
    "cancelled",
    "stopped",
]
ACTIVE = ("queued", "running", "requeued")
FINISHED = ("finished", "diverged")


@dataclass(frozen=True)
class State:
    """The state of a run; a `stopped` run was started by hand, exited and can be resumed."""

    name: Name
    detail: str = ""
    """The reason: the last line of a traceback, a host."""
    job: str = ""
    log: str = ""

    @property
    def active(self) -> bool:
        """Whether the run is queued or running."""
        return self.name in ACTIVE


def state_of(directories: Sequence[Path]) -> dict[Path, State]:
    """Return the state of each run; asks Slurm once for all of them."""
    records = {path: read_record(path / SUBMISSION) for path in directories}
    jobs = {r["job"] for r in records.values() if r.get("cluster") == "slurm" and r.get("job")}
    known = slurm.states(jobs) if jobs else {}
    return {path: _state(path, record, known) for path, record in records.items()}


def _state(path: Path, record: Mapping[str, Any], known: Mapping[str, str] | None) -> State:
    result = read_record(path / RESULT)
    job, log = str(record.get("job", "")), str(record.get("log", ""))
    if result:
        finished: Name = "diverged" if result.get("status") == "diverged" else "finished"
        return State(finished, job=job, log=log)
    if not record:
        return _of_a_process(path)
    status = read_record(path / STATUS)
    if status.get("job") != job:  # of an earlier submission
        status = {}
    name, detail = _of_a_job(record, status, known)
    launchers = (record.get("pid"), status.get("pid"))
    if name not in ACTIVE and _runs_by_hand(path, launchers):
        return State("running")
    return State(name, detail, job, log)


def _of_a_job(
    record: Mapping[str, Any], status: Mapping[str, Any], known: Mapping[str, str] | None
) -> tuple[Name, str]:
    said = status.get("state")
    local, where = record["cluster"] == "local", ""
    if local:
        slurm_says = "RUNNING" if _lives(record, status) else ""
        if record.get("cancelled") and said is None:  # its launcher may live for other runs
            return "cancelled", "before it started"
        waiting = slurm_says == "RUNNING" and said is None
        where = "" if is_here(record.get("host")) else f"on {record['host']}"
    else:
        slurm_says = (known or {}).get(record["job"], "")
        waiting = slurm_says in slurm.WAITING
    if waiting:
        return ("requeued", str(status.get("signal", ""))) if status else ("queued", where)
    if said == "failed":
        return "failed", str(status.get("error", ""))
    cancelled = record.get("cancelled") and not slurm_says
    if said == "cancelled" or slurm_says == "CANCELLED" or cancelled:
        return "cancelled", "" if said else "before it started"
    if known is None and not local:
        return said or "queued", "as last seen; no Slurm answers here"
    if slurm_says in slurm.RUNNING:
        return "running", where if said else "starting"
    if slurm_says in ("PREEMPTED", "REVOKED"):
        return "requeued", slurm_says.lower()
    if said is None:
        gone = "its launcher exited" if local else "no longer in the queue"
        return "failed", f"never started ({slurm_says.lower() or gone})"
    ending = slurm_says.lower().replace("_", " ") or "killed"
    return "failed", f"exited without reporting a status ({ending})"


def _lives(record: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Return whether a local job runs or, while it has no status, may still start."""
    host = record.get("host")
    if status:
        return is_alive(status.get("pid"), host, status.get("start_time"))
    launcher = is_alive(record.get("pid"), host, record.get("start_time"))
    return launcher or is_alive(record.get("job"), host, record.get("job_start_time"))


def _of_a_process(path: Path) -> State:
    """Return the state of a run that was started by hand."""
    if _runs_by_hand(path, ()):
        return State("running")
    return State("stopped", f"resume with: python train.py resume={path}")


def _runs_by_hand(path: Path, launchers: Sequence[Any]) -> bool:
    """Return whether the process that last began or resumed the run, no launcher, is alive."""
    environment = read_record(path / ENVIRONMENT)
    last = (environment.get("resumed") or [environment])[-1]
    pid, host = last.get("pid"), last.get("host")
    if not pid or pid in launchers or not is_alive(pid, host):
        return False
    try:
        began = datetime.fromisoformat(str(last.get("started"))).timestamp()
    except ValueError:
        return True
    since = start_time(pid) if is_here(host) else None
    return since is None or since < began + 2  # a later process has got the same number
