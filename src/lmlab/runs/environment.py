"""What a run ran on and with."""

import json
import os
import platform
import shlex
import socket
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

REVISION = "revision.json"
"""In a copy of the package, what git said about the original."""
PACKAGES = ("lmlab", "torch", "numpy", "hydra-core", "omegaconf", "pydantic", "triton")


def environment(device: str) -> dict[str, object]:
    """Return commit, command line, host, device and package versions."""
    values: dict[str, object] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "directory": str(Path.cwd()),
        **revision(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "device": device,
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            values[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return values


def revision() -> dict[str, object]:
    """Return the commit of the source tree, and whether it has changes; None: git does not know."""
    copied = Path(__file__).parents[1] / REVISION
    if copied.exists():
        values: dict[str, object] = json.loads(copied.read_text(encoding="utf-8"))
        return values
    changes = _git("status", "--porcelain")
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": None if changes is None else bool(changes),
    }


def _git(*arguments: str) -> str | None:
    """Ask git about the source tree; None where there is none."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
