"""Metrics to Weights & Biases, besides the run directory."""

import os
import secrets
from pathlib import Path
from typing import Any, Literal

from lmlab.errors import UserError
from lmlab.files import atomic_write
from lmlab.runs.config import WandbConfig

ID_FILE = ".wandb_id"


class WandbLogger:
    """One run on wandb: online with a login, offline without; a resumed run keeps its id."""

    def __init__(
        self, config: WandbConfig, directory: Path, name: str, values: dict[str, Any]
    ) -> None:
        try:
            import wandb
        except ImportError:
            raise UserError(
                "logger=wandb needs the package wandb: pip install 'lmlab[wandb]'"
            ) from None
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            mode=config.mode or _default_mode(wandb),
            dir=str(directory),
            id=_run_id(directory),
            resume="allow",
            group=name,
            name=f"{name}/{directory.name}",
            config=values,
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, row: dict[str, Any]) -> None:
        """Send one row of metrics under its step."""
        self._run.log(row, step=row["step"])

    def finish(self) -> None:
        """Flush everything and end wandb's processes."""
        self._run.finish()


def _default_mode(wandb: Any) -> Literal["offline"] | None:
    """Return None, wandb's own choice, when it can make one: $WANDB_MODE or a login."""
    if os.environ.get("WANDB_MODE") or wandb.login(prompt=False):
        return None
    return "offline"


def _run_id(directory: Path) -> str:
    path = directory / ID_FILE
    if not path.exists():
        with atomic_write(path) as file:
            file.write(secrets.token_hex(4))
    return path.read_text(encoding="utf-8")
