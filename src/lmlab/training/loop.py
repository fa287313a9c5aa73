"""The training loop, for every objective and every kind of data."""

import math
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from lmlab.optim.schedule import Schedule
from lmlab.training.checkpoint import Checkpoints
from lmlab.training.config import TrainerConfig
from lmlab.training.device import random_state, set_random_state
from lmlab.training.step import Objective, PenaltyTerms, StepStats, optimize_step
from lmlab.training.throughput import Meter, synchronize

Batches = Callable[[int], tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]]
Metrics = dict[str, float]


class Journal(Protocol):
    """Where the loop writes what it sees; a run directory."""

    def log(self, row: Metrics) -> None:
        """Append one row of metrics."""

    def position(self) -> dict[str, int]:
        """Return how long each file is."""

    def rewind(self, position: dict[str, int]) -> None:
        """Cut the files back to a position."""

    def stop_requested(self) -> bool:
        """Whether somebody asked for the run to stop at the next step."""

    def say(self, text: str) -> None:
        """Tell the user."""


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


@dataclass(frozen=True)
class Outcome:
    """How the loop ended."""

    status: Literal["finished", "diverged", "stopped"]
    progress: Progress
    tokens_per_second: float


@dataclass(frozen=True)
class Parts:
    """What the loop runs."""

    model: Callable[[Int[Tensor, "batch time"]], Tensor]
    """What is called: the compiled model, or the plain one."""
    plain_model: nn.Module
    """What is saved."""
    optimizer: Optimizer
    schedule: Schedule
    objective: Objective
    batches: Batches
    evaluate: Callable[[int], Metrics]
    autocast: Callable[[], AbstractContextManager[object]]
    device: torch.device
    flops_per_token: float
    peak: float
    penalties: PenaltyTerms | None = None
    """What is minimised beside the objective, logged apart."""
    watch: Callable[[], dict[str, Tensor]] = dict
    """What else of the last forward pass is logged."""


def train(
    parts: Parts, total_steps: int, checkpoints: Checkpoints, run: Journal, cfg: TrainerConfig
) -> Outcome:
    """Train to `total_steps` from the newest checkpoint; stops early when asked to or diverging."""
    progress = _resume(parts, checkpoints, run)
    meter = Meter(parts.flops_per_token, parts.peak, progress.tokens, progress.training_seconds)
    began = time.perf_counter() - progress.seconds
    latest: Metrics = {}
    bar = tqdm(
        total=total_steps,
        initial=progress.step,
        desc="training",
        unit="step",
        mininterval=0.1 if sys.stderr.isatty() else 10,  # a log file needs no animation
    )

    def ended(status: Literal["finished", "diverged", "stopped"]) -> Outcome:
        bar.close()
        return Outcome(status, progress, meter.overall())

    def log(row: Metrics) -> None:
        progress.seconds = time.perf_counter() - began
        head = {"step": progress.step, "tokens": progress.tokens, "seconds": progress.seconds}
        run.log(head | row)
        latest.update(row)
        bar.set_postfix_str(_postfix(latest), refresh=False)

    def evaluate() -> Metrics:
        row = parts.evaluate(progress.step)
        progress.val_loss, progress.val_bits_per_byte = row["val/loss"], row["val/bits_per_byte"]
        progress.best_val_loss = min(progress.best_val_loss, progress.val_loss)
        return row

    if progress.step == 0:
        log(evaluate())
    while progress.step < total_steps:
        meter.start()
        stats = _step(parts, progress.step, cfg)
        inputs, lr = stats.tokens, stats.lr
        progress.step += 1
        progress.tokens += inputs
        last = progress.step == total_steps
        logs, evals, saves = (
            last or progress.step % every == 0
            for every in (cfg.log_every, cfg.eval_every, cfg.checkpoint_every)
        )
        stopping = run.stop_requested()
        saves = saves or stopping
        if logs or evals or saves:
            synchronize(parts.device)
        meter.stop(inputs)
        progress.training_seconds = meter.seconds
        row: Metrics = {}
        if logs or saves:
            loss, norm = stats.measured.loss.item(), stats.measured.grad_norm.item()
            diverged = not (math.isfinite(loss) and math.isfinite(norm))
            if logs or diverged:
                row = {"train/loss": loss, "lr": lr, "grad_norm": norm} | meter.rates()
                row |= _watched(stats.measured.penalties | parts.watch())
            if diverged:
                log(row)
                return ended("diverged")
        if evals:
            row |= evaluate()
        if row:
            log(row)
        bar.update()
        if saves:
            progress.seconds = time.perf_counter() - began
            checkpoints.save(progress.step, _state(parts, progress, run))
        if stopping and not last:
            return ended("stopped")
    return ended("finished")


@dataclass(frozen=True)
class _Stepped:
    measured: StepStats
    tokens: int
    lr: float


def _step(parts: Parts, step: int, cfg: TrainerConfig) -> _Stepped:
    lr = parts.schedule(step)
    for group in parts.optimizer.param_groups:
        group["lr"] = lr
    batch = parts.batches(0 if cfg.fixed_batch else step)
    measured = optimize_step(
        parts.model,
        parts.optimizer,
        parts.objective,
        batch,
        micro_batch_size=cfg.micro_batch_size,
        max_grad_norm=cfg.max_grad_norm,
        autocast=parts.autocast,
        device=parts.device,
        penalties=parts.penalties,
    )
    return _Stepped(measured, batch[0].numel(), lr)


def _state(parts: Parts, progress: Progress, run: Journal) -> dict[str, Any]:
    return {
        "step": progress.step,
        "model": parts.plain_model.state_dict(),
        "optimizer": parts.optimizer.state_dict(),
        "random": random_state(parts.device),
        "progress": vars(progress).copy(),
        "files": run.position(),
    }


def _resume(parts: Parts, checkpoints: Checkpoints, run: Journal) -> Progress:
    state, warnings = checkpoints.load()
    for warning in warnings:
        run.say(warning)
    if state is None:
        run.rewind({})
        return Progress()
    parts.plain_model.load_state_dict(state["model"])
    parts.optimizer.load_state_dict(state["optimizer"])
    set_random_state(state["random"], parts.device)
    run.rewind(state["files"])
    run.say(f"continuing after step {state['step']}")
    return Progress(**state["progress"])


def _watched(values: dict[str, Tensor]) -> Metrics:
    return {f"train/{name}": value.item() for name, value in values.items()}


def _postfix(row: Metrics) -> str:
    names = {"train/loss": "loss", "val/loss": "val", "val/bits_per_byte": "bits/byte"}
    shown = [f"{short} {row[name]:.3f}" for name, short in names.items() if name in row]
    if "tokens_per_second" in row:
        shown.append(f"{row['tokens_per_second']:,.0f} tokens/s")
    return ", ".join(shown)
