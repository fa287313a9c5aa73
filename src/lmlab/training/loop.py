"""The training loop, for every objective and every kind of data."""

import math
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from lmlab.errors import UserError
from lmlab.optim.schedule import Schedule
from lmlab.training.checkpoint import Checkpoints
from lmlab.training.config import TrainerConfig
from lmlab.training.device import seed_step
from lmlab.training.distributed import ALONE, World
from lmlab.training.progress import Outcome, Progress, Status
from lmlab.training.step import Batch, LossScaler, Objective, StepStats, optimize_step
from lmlab.training.throughput import Meter, peak_memory, synchronize

Batches = Callable[[int], Batch]
Metrics = dict[str, float]


class Journal(Protocol):
    """Where the loop writes what it sees; a run directory."""

    def log(self, row: Metrics) -> None:
        """Append one row of metrics."""

    def position(self) -> dict[str, int]:
        """Return how long each file is."""

    def rewind(self, position: dict[str, int]) -> None:
        """Cut the files back to a position."""

    @property
    def stop_signal(self) -> int | None:
        """The signal that asked for the run to stop as soon as its work can be saved."""

    def say(self, text: str) -> None:
        """Tell the user."""


@dataclass(frozen=True)
class Parts:
    """What the loop runs."""

    model: nn.Module
    """What is saved."""
    objective: Objective
    """What is called: the model with its loss, compiled or not."""
    optimizer: Optimizer
    schedule: Schedule
    batches: Batches
    evaluate: Callable[[int], Metrics | None]
    """Measures the model after a step; None, in all processes, when a signal came first."""
    autocast: Callable[[], AbstractContextManager[object]]
    device: torch.device
    flops_per_token: float
    peaks: dict[str, float]
    """FLOP/s that the metrics `mfu` and, for known GPUs, `mfu_data_sheet` are shares of."""
    seed: int = 0
    """Of what is drawn in a step: dropout."""
    fingerprint: str = ""
    """Of the configuration; a checkpoint of another one is refused."""
    world: World = ALONE
    scaler: LossScaler | None = None
    """Of the loss, in float16."""
    watch: Callable[[], dict[str, Tensor]] = dict
    """What else of the last step is logged."""
    profile_step: Callable[[], None] = lambda: None
    """Tells the profiler that a step has ended."""


def train(
    parts: Parts, total_steps: int, checkpoints: Checkpoints, run: Journal, cfg: TrainerConfig
) -> Outcome:
    """Train to `total_steps` from the newest checkpoint; stops early when asked to or diverging."""
    world = parts.world
    progress = _resume(parts, checkpoints, run)
    meter = Meter(parts.flops_per_token, parts.peaks, progress.tokens, progress.training_seconds)
    began = time.perf_counter() - progress.seconds
    latest: Metrics = {}
    bar = tqdm(
        total=total_steps,
        initial=progress.step,
        desc="training",
        unit="step",
        mininterval=0.1 if sys.stderr.isatty() else 10,  # a log file needs no animation
        disable=not world.leads,
    )

    def ended(status: Status, stop_signal: int = 0) -> Outcome:
        bar.close()
        checkpoints.wait()
        return Outcome(status, progress, meter.overall(), stop_signal)

    def log(row: Metrics) -> None:
        progress.seconds = time.perf_counter() - began
        head = {"step": progress.step, "tokens": progress.tokens, "seconds": progress.seconds}
        run.log(head | row)
        latest.update(row)
        bar.set_postfix_str(_postfix(latest), refresh=False)

    def save() -> None:
        progress.seconds = time.perf_counter() - began
        if world.leads:
            checkpoints.save(progress.step, _state(parts, progress, run))

    def wanted_stop() -> int:  # all processes stop at the same step
        return world.maximum(run.stop_signal or 0)

    def evaluate(row: Metrics) -> int:
        """Log a row with its evaluation; when a signal comes first, return it and keep the row."""
        progress.pending = row
        measured = parts.evaluate(progress.step)
        if measured is None:
            return wanted_stop()
        progress.pending = None
        progress.val_loss = measured["val/loss"]
        progress.val_bits_per_byte = measured["val/bits_per_byte"]
        progress.best_val_loss = min(progress.best_val_loss, progress.val_loss)
        log(row | measured)
        return 0

    if progress.pending is not None and (stop_signal := evaluate(progress.pending)):
        save()
        return ended("stopped", stop_signal)
    while progress.step < total_steps:
        meter.start()
        stats, tokens, lr = _step(parts, progress.step, cfg)
        progress.step += 1
        progress.tokens += tokens
        last = progress.step == total_steps
        logs, evals, saves = (
            last or progress.step % every == 0
            for every in (cfg.log_every, cfg.eval_every, cfg.checkpoint_every)
        )
        stop_signal = wanted_stop()
        saves = saves or stop_signal > 0
        if logs or evals or saves:
            synchronize(parts.device)
        meter.stop(tokens)
        progress.training_seconds = meter.seconds
        row: Metrics = {}
        if logs or saves:
            measured = _measured(stats, parts)
            diverged = not _sound(measured, parts.scaler)
            diverged = diverged or (logs and progress.diverges(measured["train/loss"], cfg))
            if logs or diverged:
                row = measured | {"lr": lr} | meter.rates() | _watched(parts.watch())
            if diverged:
                log(row)
                return ended("diverged")
        if evals:
            stop_signal = evaluate(row) or stop_signal
        elif row:
            log(row)
        bar.update()
        parts.profile_step()
        checkpoints.check()
        if saves or stop_signal:
            save()
        if stop_signal and (not last or progress.pending is not None):
            return ended("stopped", stop_signal)
    return ended("finished")


def _step(parts: Parts, step: int, cfg: TrainerConfig) -> tuple[StepStats, int, float]:
    """Take one step; returns what it measured, the tokens of all processes, the learning rate."""
    lr = parts.schedule(step)
    for group in parts.optimizer.param_groups:
        group["lr"] = lr
    seed_step(parts.seed, step, parts.world.rank)
    inputs, targets = parts.batches(0 if cfg.fixed_batch else step)
    stats = optimize_step(
        parts.objective,
        parts.optimizer,
        (parts.world.part(inputs), parts.world.part(targets)),
        micro_batch_size=cfg.micro_batch_size,
        max_grad_norm=cfg.max_grad_norm,
        autocast=parts.autocast,
        device=parts.device,
        scaler=parts.scaler,
    )
    return stats, inputs.numel(), lr


def _state(parts: Parts, progress: Progress, run: Journal) -> dict[str, Any]:
    return {
        "step": progress.step,
        "config_fingerprint": parts.fingerprint,
        "model": parts.model.state_dict(),
        "optimizer": parts.optimizer.state_dict(),
        "scaler": vars(parts.scaler).copy() if parts.scaler else None,
        "progress": vars(progress).copy(),
        "files": run.position(),
    }


def _resume(parts: Parts, checkpoints: Checkpoints, run: Journal) -> Progress:
    if parts.world.leads:
        checkpoints.clean()
    parts.world.barrier()
    state, warnings = checkpoints.load()
    for warning in warnings:
        run.say(warning)
    if state is not None and state["config_fingerprint"] != parts.fingerprint:
        raise UserError(
            f"the checkpoint of step {state['step']} in {checkpoints.folder} was made with another "
            "configuration; remove it, or put the right one back"
        )
    parts.world.barrier()  # all have read
    if parts.world.leads:
        checkpoints.set_aside(after=-1 if state is None else state["step"])
    if state is None:
        run.rewind({})
        return Progress(pending={})
    parts.model.load_state_dict(state["model"])
    parts.optimizer.load_state_dict(state["optimizer"])
    if parts.scaler is not None:
        vars(parts.scaler).update(state["scaler"])
    run.rewind(state["files"])
    run.say(f"continuing after step {state['step']}")
    return Progress(**state["progress"])


def _measured(stats: StepStats, parts: Parts) -> Metrics:
    means = parts.world.mean(stats.terms)
    row = {f"train/{name}": value for name, value in means.items()}
    row["grad_norm"] = stats.grad_norm.item()
    if parts.scaler is not None:
        row["loss_scale"] = parts.scaler.scale
    return row | {"memory_gib": peak_memory(parts.device)}


def _sound(row: Metrics, scaler: LossScaler | None) -> bool:
    """Whether loss and gradient are finite; with a scaler gradients may overflow for a while."""
    overflows = scaler is not None and scaler.scale >= scaler.SMALLEST
    return math.isfinite(row["train/loss"]) and (math.isfinite(row["grad_norm"]) or overflows)


def _watched(values: dict[str, Tensor]) -> Metrics:
    return {f"train/{name}": value.item() for name, value in values.items()}


def _postfix(row: Metrics) -> str:
    names = {"train/loss": "loss", "val/loss": "val", "val/bits_per_byte": "bits/byte"}
    shown = [f"{short} {row[name]:.3f}" for name, short in names.items() if name in row]
    if "tokens_per_second" in row:
        shown.append(f"{row['tokens_per_second']:,.0f} tokens/s")
    return ", ".join(shown)
