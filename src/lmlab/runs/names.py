"""Names of run directories: by name and time, or by what a sweep varies."""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

LONGEST_VALUE, LONGEST_NAME = 32, 100
"""Characters of a value and of all settings in the name of a directory."""
DIGITS = 8
"""Of the fingerprint, in the name of a directory."""


def run_directory(name: str, resume: str | None) -> str:
    """Return `runs/<name>/<timestamp>`, or the directory to resume."""
    if resume is not None:
        return resume
    return str(Path("runs", name, datetime.now().strftime("%Y-%m-%d_%H-%M-%S")))


def sweep_run_name(settings: Mapping[str, Any], fingerprint: str) -> str:
    """Return the directory name of a sweep's run, such as `lr=0.003,seed=1_ab12cd34`.

    `settings` maps the swept keys to this run's values. The order of the axes does not matter, nor
    how a value is written: 3e-3 and 0.003 are the same. The name is safe in a shell and as a path.
    """
    names = shortest_names(settings)
    order = sorted(settings, key=lambda key: (key == "seed", names[key]))
    parts = [f"{_safe(names[key])}={_safe(show(settings[key]))}" for key in order]
    return f"{','.join(parts)[:LONGEST_NAME]}_{fingerprint[:DIGITS]}".lstrip("_")


def shortest_names(keys: Iterable[str]) -> dict[str, str]:
    """Return for each key its last part that says something, or all of it where two would agree."""
    keys = list(keys)
    last = [short(key) for key in keys]
    return {
        key: name if last.count(name) == 1 else re.sub(r"[/@]", ".", key)
        for key, name in zip(keys, last, strict=True)
    }


def short(key: str) -> str:
    """Return the last part of a key that says something: `model.ffn.kind` is `ffn`."""
    parts = re.split(r"[./]", key)
    return parts[-2] if parts[-1] == "kind" and len(parts) > 1 else parts[-1]


def show(value: Any) -> str:
    """Return a value as one would write it on the command line."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _safe(text: str) -> str:
    cleaned = re.sub(r"[^\w.+-]+", "-", text, flags=re.ASCII).strip("-" if len(text) > 1 else "")
    return cleaned[:LONGEST_VALUE] or "-"
