"""Progress of long work on stderr: a bar, or one line."""

import sys
from typing import Any

from tqdm import tqdm


def bar(
    description: str, total: int | None, shown: bool, initial: int = 0, unit: str = "B"
) -> "tqdm[Any]":
    """Return a progress bar that counts bytes, or what `unit` says.

    `initial` of `total` are done already.
    """
    return tqdm(
        desc=description,
        total=total,
        initial=initial,
        disable=not shown,
        unit=unit,
        unit_scale=unit == "B",
        mininterval=0.1 if sys.stderr.isatty() else 10,  # a log file needs no animation
        dynamic_ncols=True,
        file=sys.stderr,
    )


def say(line: str) -> None:
    """Print one line to stderr, above any progress bar."""
    tqdm.write(line, file=sys.stderr)
