"""Sharded checkpoints: exact, read by any layout, atomic, checked; several processes with gloo."""

import json
import os
import pickle
import resource
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.fsdp import fully_shard

from forked import results_of, run_forked
from lmlab.errors import UserError
from lmlab.layout import checkpoint_of, run_of
from lmlab.model import build
from lmlab.optim import build_optimizer, build_schedule
from lmlab.training import sharded_checkpoint
from lmlab.training.checkpoint import Checkpoints, read_checkpoint
from lmlab.training.distributed import SINGLE_PROCESS, DistributedContext
from lmlab.training.loop import TrainingSetup, train
from lmlab.training.objective import NextToken
from lmlab.training.runtime import Runtime
from lmlab.training.sharded_checkpoint import split, staged, write_sharded
from lmlab.training.state import Criterion, TrainState
from lmlab.training.throughput import Meter
from tests_support import TINY, composed

Rows = list[dict[str, Any]]
STEPS = 6
TINIER = (
    *TINY,
    *("model.vocab_size=64", "model.d_model=16", "model.d_ff=32", "model.num_layers=1"),
    *(f"budget.steps={STEPS}", "trainer.eval_every=100", "trainer.log_every=1"),
    "trainer.checkpoint_every=2",
)
MOE = ("model/ffn=moe", "model.ffn.num_experts=4")


@dataclass
class MemoryLog:
    """A run directory in memory, which stops the run after a step."""

    stop_after: int = 10**9
    rows: Rows = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def position(self) -> dict[str, int]:
        return {}

    def rewind(self, position: dict[str, int]) -> None:
        pass

    @property
    def stop_signal(self) -> int | None:
        stops = bool(self.rows) and self.rows[-1]["step"] >= self.stop_after
        return signal.SIGTERM if stops else None

    def say(self, text: str) -> None:
        self.said.append(text)


@dataclass(frozen=True)
class Batches:
    """This process's rows of a batch of 4 that depends on the step alone."""

    distributed: DistributedContext

    def __call__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(step)
        tokens = torch.randint(0, 64, (4, 33), generator=generator)
        tokens = tokens[self.distributed.rank :: self.distributed.size]
        return tokens[:, :-1], tokens[:, 1:]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise AssertionError("there is no state to load")


@dataclass(frozen=True)
class Trained:
    """What a process saw of a run."""

    rows: Rows
    said: list[str]
    weights: dict[str, torch.Tensor]
    """Whole weights."""


def setup_of(
    kind: str, distributed: DistributedContext, overrides: tuple[str, ...]
) -> TrainingSetup:
    config = composed(*TINIER, *overrides)
    torch.manual_seed(0)
    model = build(config.model, 64)
    objective: Any = NextToken(model)
    weight = objective.weight
    if kind == "fsdp" and distributed.size > 1:
        for block in model.blocks:
            fully_shard(block)
        fully_shard(objective)
    elif distributed.size > 1:
        objective = torch.nn.parallel.DistributedDataParallel(objective)
    steps = config.budget.steps
    return TrainingSetup(
        model=model,
        objective=objective,
        weight=weight,
        source=Batches(distributed),
        optimizer=build_optimizer(config.optimizer, model),
        schedule=build_schedule(config.schedule, config.optimizer.lr, steps),
        evaluate=lambda step: {"val/loss": 1.0},
        criterion=Criterion(),
        runtime=Runtime(torch.device("cpu"), distributed=distributed),
        meter=Meter(1.0, {"mfu": 1.0}),
    )


def trained(
    kind: str, folder: Path, overrides: tuple[str, ...] = (), stop_after: int = 10**9
) -> Callable[[DistributedContext], Trained]:
    """Return what trains in a process from the newest checkpoint."""

    def body(distributed: DistributedContext) -> Trained:
        config = composed(*TINIER, *overrides)
        setup = setup_of(kind, distributed, overrides)
        log = MemoryLog(stop_after)
        checkpoints = Checkpoints(folder, config.trainer.keep_checkpoints, distributed)
        train(setup, STEPS, checkpoints, log, config.trainer)
        whole = {name: full(value) for name, value in setup.model.state_dict().items()}
        return Trained(log.rows, log.said, whole)

    return body


def full(tensor: Any) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def losses(trained: Trained) -> dict[int, float]:
    return {row["step"]: row["train/loss"] for row in trained.rows if "train/loss" in row}


def run_in(folder: Path) -> Path:
    """Return a run directory whose `checkpoints/` is a folder."""
    directory = folder.parent / f"{folder.name}_directory"
    directory.mkdir(exist_ok=True)
    if not (directory / "checkpoints").exists():
        (directory / "checkpoints").symlink_to(folder)
    return directory


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_resuming_under_the_same_strategy_is_exact(tmp_path: Path) -> None:
    whole = results_of(2, trained("fsdp", tmp_path / "whole"))
    first = results_of(2, trained("fsdp", tmp_path / "run", stop_after=3))
    assert names(tmp_path / "run") == {"step_00000002.dcp", "step_00000004.dcp", "latest"}
    second = results_of(2, trained("fsdp", tmp_path / "run"))
    assert "resuming after step 4" in second[0].said
    for rank in range(2):
        assert losses(first[rank]) | losses(second[rank]) == losses(whole[rank])
        for name, weight in whole[rank].weights.items():
            assert torch.equal(weight, second[rank].weights[name]), name


@pytest.mark.parametrize("overrides", [(), ("model.tie_embeddings=true",), MOE, ("optimizer=sgd",)])
@pytest.mark.parametrize(
    ("before", "after"),
    [(("fsdp", 2), ("none", 1)), (("ddp", 2), ("fsdp", 2)), (("fsdp", 2), ("ddp", 2))],
)
def test_another_strategy_changes_no_loss(
    tmp_path: Path, before: tuple[str, int], after: tuple[str, int], overrides: tuple[str, ...]
) -> None:
    run = tmp_path / "run"
    whole = results_of(1, trained("none", tmp_path / "whole", overrides))[0]
    first = results_of(before[1], trained(before[0], run, overrides, stop_after=3))[0]
    second = results_of(after[1], trained(after[0], run, overrides))
    for rank, found in enumerate(second):
        both = losses(first) | losses(found)
        assert both == pytest.approx(losses(whole), rel=1e-5), rank
        torch.testing.assert_close(found.weights, whole.weights, rtol=1e-3, atol=1e-5)
    suffix = {"fsdp": "dcp"}
    assert checkpoint_of(run_in(run)).name.endswith(suffix.get(after[0], "pt"))
