"""How far a run is, whether it still improves, and how it ended."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from lmlab.training.config import TrainerConfig

Status = Literal["finished", "diverged", "stopped"]
Metrics = dict[str, float]


@dataclass(frozen=True)
class Criterion:
    """Which metrics of a task say how good a run is, and whether it diverges."""

    metric: str = "val/loss"
    """Metric of an evaluation whose best value is kept."""
    maximize: bool = False
    """The largest value is the best; False: the smallest."""
    divergence_metric: str | None = "train/loss"
    """Logged metric that must not stay far above its lowest value; None: it only must be finite."""

    def best(self, values: list[float]) -> float:
        """Return the best of some values of `metric`."""
        return max(values) if self.maximize else min(values)


@dataclass
class TrainState:
    """How far a run is; part of every checkpoint."""

    step: int = 0
    tokens: int = 0
    flops: float | None = 0.0
    """Of the training steps; None: not counted, or not in the checkpoint of an earlier version."""
    seconds: float = 0.0
    training_seconds: float = 0.0
    evaluation: Metrics = field(default_factory=dict)
    """Metrics of the last evaluation."""
    best: float | None = None
    """Best value of the criterion's metric; None before the first evaluation."""
    lowest: float = math.inf
    """Lowest logged value of the divergence metric."""
    rows_above: int = 0
    """Consecutive logged rows whose divergence metric was far above the lowest."""
    pending: Metrics | None = None
    """Metrics of this step that wait for its evaluation to be logged with it."""

    def evaluated(self, measured: Metrics, criterion: Criterion) -> None:
        """Record an evaluation; a value that is not finite is not the best."""
        self.evaluation = measured
        found = measured[criterion.metric]
        if math.isfinite(found):
            self.best = found if self.best is None else criterion.best([self.best, found])

    def is_sound(self, criterion: Criterion) -> bool:
        """Whether the last evaluation, if there is one, found a finite value."""
        return math.isfinite(self.evaluation.get(criterion.metric, 0.0))

    def diverges(self, value: float, cfg: TrainerConfig) -> bool:
        """Record a logged value; return whether it has stayed far above the lowest for too long.

        Far is `max_loss_rise` above the lowest logged value, too long is `divergence_patience`
        consecutive rows.
        """
        self.lowest = min(self.lowest, value)
        if cfg.max_loss_rise is None:
            return False
        self.rows_above = self.rows_above + 1 if value > self.lowest + cfg.max_loss_rise else 0
        return self.rows_above >= cfg.divergence_patience

    @classmethod
    def from_checkpoint(cls, values: dict[str, Any]) -> Self:
        """Return a saved state, also of a checkpoint of earlier versions."""
        values = {"flops": None, **values}
        if "best_val_loss" in values:
            evaluation = {
                "val/loss": values.pop("val_loss"),
                "val/bits_per_byte": values.pop("val_bits_per_byte"),
            }
            if math.isfinite(best := values.pop("best_val_loss")):
                values |= {"evaluation": evaluation, "best": best}
            values["lowest"] = values.pop("best_train_loss")
        return cls(**values)


@dataclass(frozen=True)
class Outcome:
    """How the loop ended."""

    status: Status
    state: TrainState
    tokens_per_second: float
    stop_signal: int = 0
    """The signal that stopped it."""
