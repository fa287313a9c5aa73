"""The batches of a policy's training: made of rollouts, which are made when they are needed."""

import random
from collections.abc import Callable
from typing import Any, Protocol

from lmlab.alignment.collecting import Collector, Rollout
from lmlab.alignment.experience import Experience, selected


class Method(Protocol):
    """What distinguishes the algorithms: which responses are learnt from, and how much."""

    def __call__(self, rollout: Rollout) -> tuple[Experience, list[int]]:
        """Return the trajectories with their advantages, and the rows to train on."""


class RolloutSource:
    """Batches of `batch_size` responses; the rows of a rollout are taken `epochs` times.

    Each epoch has an order of its own. Where the rows of all epochs do not fill the last batch,
    they are taken once more. `observe` is called with each rollout and its trajectories. The state
    is the rollout that is being used, and how many came before.
    """

    def __init__(
        self,
        collector: Collector,
        method: Method,
        batch_size: int,
        epochs: int,
        observe: Callable[[int, Rollout, Experience], None] = lambda *_: None,
        nothing_kept: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.collector, self.method = collector, method
        self.batch_size, self.epochs = batch_size, epochs
        self.observe, self.nothing_kept = observe, nothing_kept
        self.rollouts = 0
        self.pending: list[list[int]] = []
        self.trajectories: Experience | None = None
        self._last: tuple[int, Experience] | None = None

    def __call__(self, step: int) -> Experience:
        """Return this process's rows of the batch of a step; all processes must call it."""
        if self._last is not None and self._last[0] == step:
            return self._last[1]
        empty = 0
        while not self.pending:
            self._refill(step)
            if not self.pending:
                empty += 1
                self.nothing_kept(empty)
        assert self.trajectories is not None
        rows = self.pending.pop(0)
        distributed = self.collector.runtime.distributed
        share = len(rows) // distributed.data_size
        part = slice(distributed.data_rank * share, (distributed.data_rank + 1) * share)
        batch = selected(self.trajectories, rows, part)
        self._last = (step, batch)
        return batch

    def _refill(self, step: int) -> None:
        number, self.rollouts = self.rollouts, self.rollouts + 1
        rollout = self.collector(number)
        self.trajectories, rows = self.method(rollout)
        self.observe(step, rollout, self.trajectories)
        if not rows:
            return
        rng = random.Random(f"{self.collector.runtime.seed}/{number}")
        order: list[int] = []
        updates = -(-self.epochs * len(rows) // self.batch_size)
        while len(order) < updates * self.batch_size:
            order += rng.sample(rows, len(rows))
        self.pending = [
            order[i * self.batch_size : (i + 1) * self.batch_size] for i in range(updates)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the rollout in use, as tensors, and the number of rollouts."""
        state: dict[str, Any] = {"rollouts": self.rollouts, "pending": self.pending}
        if self.pending and self.trajectories is not None:
            state["trajectories"] = self.trajectories._asdict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.rollouts = state["rollouts"]
        self.pending = [list(rows) for rows in state["pending"]]
        kept = state.get("trajectories")
        self.trajectories = None if kept is None else Experience(**kept)
        self._last = None
