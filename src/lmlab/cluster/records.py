"""The small files by which a run directory tells about its job."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmlab.files import atomic_write

SUBMISSION = "submission.json"
"""Written by whoever submits the run: cluster, job, log, time."""
STATUS = "status.json"
"""Written by the job itself: state, job, restarts, error."""
ERROR = "error.txt"
"""The traceback of a job that failed."""
WORK = ".submit"
"""Folder beside the runs of a sweep: scripts and logs of its jobs, copies of the code."""


def read_record(path: Path) -> dict[str, Any]:
    """Return what a record holds; nothing when there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def note_cancelled(directory: Path) -> None:
    """Note that a run was cancelled: Slurm forgets it, and one that never started says nothing."""
    record = directory / SUBMISSION
    write_record(record, {**read_record(record), "cancelled": True})


def write_record(path: Path, values: Mapping[str, Any]) -> None:
    """Publish a record."""
    with atomic_write(path, durable=False) as file:
        json.dump(dict(values), file, indent=2)
        file.write("\n")
