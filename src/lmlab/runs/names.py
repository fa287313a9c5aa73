"""Where a run is kept: a directory by name and time, or by what is swept."""

import re
from datetime import datetime
from pathlib import Path

MAX_READABLE = 100
NOT_SHOWN = ("sweep=", "name=", "hydra", "slurm.")


def run_directory(name: str, resume: str | None) -> str:
    """Return `runs/<name>/<timestamp>`, or the directory to resume."""
    if resume is not None:
        return resume
    return str(Path("runs", name, datetime.now().strftime("%Y-%m-%d_%H-%M-%S")))


def run_signature(overrides: list[str], fingerprint: str) -> str:
    """Return the folder name of a sweep's run: its settings, sorted, and the fingerprint.

    It depends on the run's configuration only, not on job numbers, times or the order of the axes,
    so that starting a sweep again finds the runs that are there. It holds nothing that would have
    to be quoted in `resume=DIR`: `lr=1e-3` becomes `lr-1e-3`, `model/ffn=glu` becomes `ffn-glu`.
    """
    shown = [o for o in overrides if not o.lstrip("+").startswith(NOT_SHOWN)]
    shown.sort(key=lambda override: (len(override), override))  # axes are short, paths are cut
    short = [re.sub(r"^[\w.+/@]*[./]", "", override) for override in shown]
    readable = re.sub(r"[^\w.+-]+", "-", "_".join(short))[:MAX_READABLE]
    return f"{readable}_{fingerprint[:8]}".lstrip("_")
