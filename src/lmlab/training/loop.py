"""The training loop, for every task: it knows batches, an objective and an evaluation."""

import math
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from lmlab.errors import UserError
from lmlab.optim.schedule import Schedule
from lmlab.training.batch import Batch, count_elements
from lmlab.training.checkpoint import Checkpoints
from lmlab.training.config import TrainerConfig
from lmlab.training.device import seed_step
from lmlab.training.resume import resume, snapshot
from lmlab.training.runtime import Runtime
from lmlab.training.state import Criterion, Metrics, Outcome, Status, TrainState
from lmlab.training.step import LossFunction, LossScaler, StepStats, optimize_step
from lmlab.training.throughput import Meter, peak_memory, synchronize

Hook = Callable[[bool], dict[str, Tensor]]
"""Called after each step with whether the step is logged; returns what to log of it then."""


class RunLog(Protocol):
    """Where the loop writes metrics and messages: a run directory."""

    def log(self, row: Metrics) -> None:
        """Append one row of metrics."""

    def position(self) -> dict[str, int]:
        """Return the length of each file."""

    def rewind(self, position: dict[str, int]) -> None:
        """Cut the files back to a position."""

    @property
    def stop_signal(self) -> int | None:
        """The signal that asked the run to save and stop."""

    def say(self, text: str) -> None:
        """Print a line for the user."""


class Source(Protocol):
    """Where batches come from: a function of the step, or something with a state of its own."""

    def __call__(self, step: int) -> Batch:
        """Return this process's part of the batch of a step."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must keep; empty when a batch depends on (seed, step) alone."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""


@dataclass(frozen=True)
class TrainingSetup:
    """What the loop runs."""

    model: nn.Module
    """What is saved."""
    objective: LossFunction
    """The model with its loss, compiled or not."""
    weight: Callable[..., float]
    """Takes the parts of a batch; returns what the sums of the objective are divided by."""
    source: Source
    optimizer: Optimizer
    schedule: Schedule
    evaluate: Callable[[int], Metrics | None]
    """Measures the model after a step; None, in all processes, when a signal came first."""
    criterion: Criterion
    runtime: Runtime
    meter: Meter
    flops: Callable[[Batch], float] | None = None
    """Takes this process's batch; returns the FLOPs of training on it. None: not counted."""
    fingerprint: str = ""
    """Fingerprint of the configuration."""
    earlier_fingerprints: Collection[str] = ()
    """What earlier versions called the same configuration; checkpoints with others are refused."""
    scaler: LossScaler | None = None
    """Scaler of the loss in float16."""
    hooks: Sequence[Hook] = ()


def train(
    setup: TrainingSetup,
    total_steps: int,
    checkpoints: Checkpoints,
    log: RunLog,
    cfg: TrainerConfig,
    start: Callable[[TrainingSetup], TrainState] = lambda _: TrainState(),
) -> Outcome:
    """Train to `total_steps` from the newest checkpoint, or without one from what `start` returns.

    Stops early when a signal asks for it, or when the run diverges.
    """
    state = resume(setup, checkpoints, log)
    if state is None:
        state = replace(start(setup), pending={})
    loop = _Loop(setup, state, total_steps, checkpoints, log, cfg)
    try:
        with loop.bar:
            status, stop_signal = loop.run()
    finally:
        checkpoints.join()  # before its processes part
    checkpoints.wait()
    return Outcome(status, state, setup.meter.overall(), stop_signal)


class _Loop:
    def __init__(
        self,
        setup: TrainingSetup,
        state: TrainState,
        total_steps: int,
        checkpoints: Checkpoints,
        log: RunLog,
        cfg: TrainerConfig,
    ) -> None:
        self.setup, self.state, self.total_steps = setup, state, total_steps
        self.checkpoints, self.log, self.cfg = checkpoints, log, cfg
        self.distributed = setup.runtime.distributed
        self.meter = setup.meter
        self.meter.continue_from(state.tokens, state.training_seconds)
        self.began = time.perf_counter() - state.seconds
        self.latest: Metrics = {}
        self.bar = tqdm(
            total=total_steps,
            initial=state.step,
            desc="training",
            unit="step",
            mininterval=0.1 if sys.stderr.isatty() else 10,  # a log file needs no animation
            disable=not self.distributed.is_main_process,
        )

    def run(self) -> tuple[Status, int]:
        """Return how the loop ended, and the signal that stopped it or 0."""
        state = self.state
        if state.pending is not None and (stop_signal := self.evaluate(state.pending)):
            self.save()
            return "stopped", stop_signal
        if not state.is_sound(self.setup.criterion):
            return "diverged", 0
        while state.step < self.total_steps:
            stats, lr = self.step()
            last = state.step == self.total_steps
            logs, evals, saves = (last or state.step % every == 0 for every in self.intervals())
            stop_signal = self.stop_requested()
            saves = saves or stop_signal > 0
            if logs or evals or saves:
                synchronize(self.setup.runtime.device)
            self.meter.stop()
            state.training_seconds = self.meter.seconds
            row: Metrics = {}
            observed = [hook(logs) for hook in self.setup.hooks]
            if logs or saves:
                measured = self.measured(stats)
                diverged = not self.is_finite(measured) or (logs and self.diverges(measured))
                if logs or diverged:
                    row = measured | {"lr": lr} | self.meter.rates()
                    row |= {f"train/{k}": v.item() for seen in observed for k, v in seen.items()}
                if diverged:
                    self.write(row)
                    return "diverged", 0
            if evals:
                stop_signal = self.evaluate(row) or stop_signal
                if not state.is_sound(self.setup.criterion):
                    return "diverged", 0
            elif row:
                self.write(row)
            self.bar.update()
            if saves or stop_signal:
                self.save()
            if stop_signal and (not last or state.pending is not None):
                return "stopped", stop_signal
        return "finished", 0

    def intervals(self) -> tuple[int, int, int]:
        """Return the steps between rows of metrics, evaluations and checkpoints."""
        return self.cfg.log_every, self.cfg.eval_every, self.cfg.checkpoint_every

    def step(self) -> tuple[StepStats, float]:
        """Take one step; return what it measured, and the learning rate."""
        setup, state = self.setup, self.state
        self.meter.start()
        lr = setup.schedule(state.step)
        for group in setup.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        seed_step(setup.runtime.seed, state.step, self.distributed.data_rank)
        batch = setup.source(0 if self.cfg.fixed_batch else state.step)
        self.meter.batch_is_ready()
        self.meter.stop()  # rows of a new length are counted for a while
        own = setup.flops(batch) if setup.flops else 0.0
        self.meter.start()
        weight, tokens, counted = self.distributed.sum(
            setup.weight(*batch), count_elements(batch), own
        )
        flops = counted if setup.flops else None
        if weight <= 0:
            raise UserError(
                f"the batch of step {state.step} has the weight {weight:g}: nothing in it counts "
                "for the loss; check the masks of the data"
            )
        stats = optimize_step(
            setup.objective,
            setup.optimizer,
            batch,
            weight,
            setup.runtime,
            micro_batch_size=self.cfg.micro_batch_size,
            max_grad_norm=self.cfg.max_grad_norm,
            scaler=setup.scaler,
        )
        state.step += 1
        state.tokens += int(tokens)
        state.flops = None if flops is None or state.flops is None else state.flops + flops
        self.meter.count(int(tokens), flops)
        return stats, lr

    def evaluate(self, row: Metrics) -> int:
        """Log a row with its evaluation; when a signal comes first, return it and keep the row."""
        self.state.pending = row
        measured = self.setup.evaluate(self.state.step)
        if measured is None:
            return self.stop_requested()
        self.state.pending = None
        self.state.evaluated(measured, self.setup.criterion)
        self.write(row | measured)
        return 0

    def write(self, row: Metrics) -> None:
        """Log a row, and show it at the progress bar."""
        state = self.state
        state.seconds = time.perf_counter() - self.began
        self.log.log({"step": state.step, "tokens": state.tokens, "seconds": state.seconds} | row)
        self.latest |= row
        self.bar.set_postfix_str(_postfix(self.latest, self.setup.criterion), refresh=False)

    def save(self) -> None:
        """Save a checkpoint."""
        self.state.seconds = time.perf_counter() - self.began
        self.checkpoints.save(self.state.step, snapshot(self.setup, self.state, self.log))

    def stop_requested(self) -> int:
        """Return the signal that asked to stop, or 0; the same in all processes.

        Raises UserError in all of them when a checkpoint could not be written.
        """
        own = self.log.stop_signal or 0
        stop_signal, failed = self.distributed.maxima(own, self.checkpoints.failed)
        if failed:
            self.checkpoints.wait()
        return stop_signal

    def measured(self, stats: StepStats) -> Metrics:
        """Return the metrics of a step, over all processes."""
        values = torch.stack([value.float() for value in stats.terms.values()]).tolist()
        sums = self.distributed.sum(*values)
        row = {f"train/{name}": value for name, value in zip(stats.terms, sums, strict=True)}
        row["grad_norm"] = stats.grad_norm.item()
        if self.setup.scaler is not None:
            row["loss_scale"] = self.setup.scaler.scale
        return row | {"memory_gib": peak_memory(self.setup.runtime.device)}

    def is_finite(self, row: Metrics) -> bool:
        """Whether loss and gradient are finite; a scaled gradient may overflow for a while."""
        scaler = self.setup.scaler
        overflows = scaler is not None and scaler.scale >= scaler.SMALLEST
        return math.isfinite(row["train/loss"]) and (math.isfinite(row["grad_norm"]) or overflows)

    def diverges(self, row: Metrics) -> bool:
        """Whether the task's divergence metric has stayed too high for too long."""
        name = self.setup.criterion.divergence_metric
        return name is not None and self.state.diverges(row[name], self.cfg)


def _postfix(row: Metrics, criterion: Criterion) -> str:
    names = {"train/loss": "loss", "val/loss": "val", "val/bits_per_byte": "bits/byte"}
    names.setdefault(criterion.metric, criterion.metric)
    shown = [f"{short} {row[name]:.3f}" for name, short in names.items() if name in row]
    if "tokens_per_second" in row:
        shown.append(f"{row['tokens_per_second']:,.0f} tokens/s")
    return ", ".join(shown)
