"""Progress of long work on stderr: a bar, or one line."""

import sys
from typing import Any

from tqdm import tqdm


def bar(description: str, total: int | None, shown: bool, initial: int = 0) -> "tqdm[Any]":
    """Return a progress bar that counts bytes; `initial` of `total` are done already."""
    return tqdm(
        desc=description,
        total=total,
        initial=initial,
        disable=not shown,
        unit="B",
        unit_scale=True,
        dynamic_ncols=True,
        file=sys.stderr,
    )


def say(line: str) -> None:
    """Print one line to stderr, above any progress bar."""
    tqdm.write(line, file=sys.stderr)
