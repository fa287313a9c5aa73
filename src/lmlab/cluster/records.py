"""The small files in a run directory that describe its job."""

import json
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lmlab.errors import UserError
from lmlab.files import atomic_write

SUBMISSION = "submission.json"
"""Written by the launcher: cluster, job, log, time."""
STATUS = "status.json"
"""Written by the job: state, job, restarts, error."""
ERROR = "error.txt"
"""The traceback of a job that failed."""
WORK = ".submit"
"""Folder beside the runs of a sweep: lock, scripts and logs of its jobs, copies of the code."""


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of a record; an empty dictionary when there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def write_record(path: Path, values: Mapping[str, Any]) -> None:
    """Publish a record."""
    with atomic_write(path, durable=False) as file:
        json.dump(dict(values), file, indent=2)
        file.write("\n")


def mark_cancelled(directory: Path) -> None:
    """Record that a run was cancelled: Slurm forgets it, and a queued one has no status."""
    record = directory / SUBMISSION
    write_record(record, {**read_record(record), "cancelled": True})


def is_cancelled(directory: Path) -> bool:
    """Return whether a run was cancelled since it was submitted."""
    return bool(read_record(directory / SUBMISSION).get("cancelled"))


def write_status(directory: Path, state: str, values: Mapping[str, Any]) -> None:
    """Publish the state of a job, with the time."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_record(directory / STATUS, {"state": state, "time": now, **values})


def write_failure(directory: Path, error: BaseException, values: Mapping[str, Any]) -> str:
    """Publish the error that a job ended with, and its traceback; return the error in one line."""
    line = str(error) if isinstance(error, UserError) else _last_line(error)
    text = "".join(traceback.format_exception(error))
    (directory / ERROR).write_text(text, encoding="utf-8")
    write_status(directory, "failed", {**values, "error": line})
    return line


def _last_line(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip().splitlines()[-1]
