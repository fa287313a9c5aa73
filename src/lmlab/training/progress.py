"""How far a run is, and whether it still gets better."""

import math
from dataclasses import dataclass
from typing import Literal

from lmlab.training.config import TrainerConfig

Status = Literal["finished", "diverged", "stopped"]


@dataclass
class Progress:
    """How far a run is; part of every checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    training_seconds: float = 0.0
    best_val_loss: float = math.inf
    val_loss: float = math.inf
    val_bits_per_byte: float = math.inf
    best_train_loss: float = math.inf
    rows_above: int = 0
    """Logged rows in a row whose loss was far above the best."""
    pending: dict[str, float] | None = None
    """The row of metrics that is logged with the evaluation after this step, until it is."""

    def diverges(self, loss: float, cfg: TrainerConfig) -> bool:
        """Take note of a logged loss; whether it has stayed far above the best for too long.

        Far is `max_loss_rise` nats above the lowest one logged, too long `divergence_patience`
        logged rows in a row.
        """
        self.best_train_loss = min(self.best_train_loss, loss)
        if cfg.max_loss_rise is None:
            return False
        above = loss > self.best_train_loss + cfg.max_loss_rise
        self.rows_above = self.rows_above + 1 if above else 0
        return self.rows_above >= cfg.divergence_patience


@dataclass(frozen=True)
class Outcome:
    """How the loop ended."""

    status: Status
    progress: Progress
    tokens_per_second: float
    stop_signal: int = 0
    """What it was stopped by."""
