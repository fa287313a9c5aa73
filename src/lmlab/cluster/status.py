"""What has become of runs: their directories know, and Slurm where there is one."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lmlab.cluster import slurm
from lmlab.cluster.processes import alive, is_here
from lmlab.cluster.records import STATUS, SUBMISSION, read_record
from lmlab.layout import CONFIG
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
OVER = ("finished", "diverged")


@dataclass(frozen=True)
class State:
    """Where a run stands; `stopped` is one that nobody is running and that can be continued."""

    name: Name
    detail: str = ""
    """What a person should know besides: a traceback's last line, a reason."""
    job: str = ""
    log: str = ""


def find_runs(root: Path) -> list[Path]:
    """Return the run directories at and below `root`, sorted by path."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [
            name for name in folders if not name.startswith(".") and name != "checkpoints"
        ]
        if CONFIG in files:
            found.append(Path(folder))
            folders.clear()
    return sorted(found)


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
        over: Name = "diverged" if result.get("status") == "diverged" else "finished"
        return State(over, job=job, log=log)
    if not record:
        return _of_a_process(path)
    status = read_record(path / STATUS)
    if status.get("job") != job:  # of an earlier submission
        status = {}
    name, detail = _of_a_job(record, status, known)
    return State(name, detail, job, log)


def _of_a_job(
    record: Mapping[str, Any], status: Mapping[str, Any], known: Mapping[str, str] | None
) -> tuple[Name, str]:
    said = status.get("state")
    local, where = record["cluster"] == "local", ""
    if local:
        slurm_says = "RUNNING" if _lives(record, status) else ""
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
        gone = "its launcher has ended" if local else "no longer in the queue"
        return "failed", f"never started ({slurm_says.lower() or gone})"
    ending = slurm_says.lower().replace("_", " ") or "killed"
    return "failed", f"ended without a word ({ending})"


def _lives(record: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Whether a local job runs or, while it has said nothing, may still start."""
    host = record.get("host")
    if status:
        return alive(status.get("pid"), host, status.get("born"))
    launcher = alive(record.get("pid"), host, record.get("born"))
    return launcher or alive(record.get("job"), host, record.get("job_born"))


def _of_a_process(path: Path) -> State:
    """Return the state of a run that was started by hand."""
    environment = read_record(path / ENVIRONMENT)
    last = (environment.get("resumed") or [environment])[-1]
    if last.get("pid") and alive(last["pid"], last.get("host")):
        return State("running")
    return State("stopped", f"continue with: python train.py resume={path}")
