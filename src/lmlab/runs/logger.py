"""Metrics to Weights & Biases, besides the run directory."""

import os
import secrets
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from lmlab.errors import UserError
from lmlab.files import atomic_write
from lmlab.runs.config import WandbConfig

ID_FILE = ".wandb_id"


class WandbLogger:
    """One run on wandb: online with a login, offline without; a resumed run keeps its id.

    Raises UserError when wandb is not installed, or refuses the run: a project's name, a mode
    without a login, no network.
    """

    def __init__(
        self, config: WandbConfig, directory: Path, name: str, values: dict[str, Any]
    ) -> None:
        try:
            import wandb
        except ImportError:
            raise UserError(
                "logger=wandb needs the package wandb: pip install 'lmlab[wandb]'"
            ) from None
        is_new = not (directory / ID_FILE).exists()
        try:
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
        except (wandb.errors.Error, ValidationError) as error:
            if is_new:
                (directory / ID_FILE).unlink(missing_ok=True)
            raise UserError(
                f"logger=wandb: {_reason(error)}; without a login or a network, "
                "logger.mode=offline keeps the run on disk"
            ) from error

    def log(self, row: dict[str, Any]) -> None:
        """Send one row of metrics under its step."""
        self._run.log(row, step=row["step"])

    def finish(self) -> None:
        """Flush everything and end wandb's processes."""
        self._run.finish()


def _reason(error: Exception) -> str:
    """Return why wandb refuses a run; a ValidationError is about a variable such as $WANDB_MODE."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        name = "_".join(map(str, first["loc"])).upper()
        return f"WANDB_{name}={first['input']}: {first['msg']}"
    return " ".join(str(error).split()).removesuffix(".")


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
