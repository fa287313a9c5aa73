"""Where a run is kept: a directory by name and time, or by what is swept."""

import re
from datetime import datetime
from pathlib import Path

MAX_READABLE = 120


def run_directory(name: str, resume: str | None) -> str:
    """Return `runs/<name>/<timestamp>`, or the directory to resume."""
    if resume is not None:
        return resume
    return str(Path("runs", name, datetime.now().strftime("%Y-%m-%d_%H-%M-%S")))


def run_signature(overrides: list[str], fingerprint: str) -> str:
    """Return the folder name of a sweep's run: its settings, sorted, and the fingerprint.

    It depends on the run's configuration only, not on job numbers, times or the order of the axes,
    so that starting a sweep again finds the runs that are there.
    """
    shown = [o for o in overrides if not o.startswith(("sweep=", "name=", "hydra"))]
    shown.sort(key=lambda override: (len(override), override))  # axes are short, paths are cut
    readable = re.sub(r"[^\w.=,+-]", "-", ",".join(shown))[:MAX_READABLE]
    return f"{readable}_{fingerprint[:8]}".lstrip("_")
