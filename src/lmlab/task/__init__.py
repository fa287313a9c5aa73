"""What is trained for: `run` starts the configured task."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmlab.config import RunConfig


def run(config: "RunConfig", directory: Path) -> None:
    """Run the configured task in a run directory."""
    from lmlab.task.pretrain import run as pretrain

    pretrain(config, directory)
