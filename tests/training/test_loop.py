"""The loop in one process: overfitting, accumulation, evaluation, budgets, checkpoints."""

import errno
import io
import math
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lmlab.errors import ConfigError, UserError
from lmlab.model import build
from lmlab.optim import AdamW, build_optimizer, build_schedule
from lmlab.training import cross_entropy, load_checkpoint, save_checkpoint
from lmlab.training.budget import total_steps
from lmlab.training.checkpoint import Checkpoints, read_checkpoint
from lmlab.training.device import resolve_device, resolve_precision
from lmlab.training.evaluate import Evaluator
from lmlab.training.loop import TrainingSetup, train
from lmlab.training.objective import NextToken
from lmlab.training.runtime import Runtime
from lmlab.training.state import Criterion, Outcome, TrainState
from lmlab.training.step import LossScaler, optimize_step
from lmlab.training.throughput import Meter
from tests_support import TINY, composed

CPU = torch.device("cpu")
CONFIG = composed(*TINY)


def tiny_model(seed: int = 0, *overrides: str) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build(composed(*TINY, *overrides).model, 257)


@dataclass
class MemoryLog:
    """A run directory in memory."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    stop_after: int = 10**9

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def position(self) -> dict[str, int]:
        return {"rows": len(self.rows)}

    def rewind(self, position: dict[str, int]) -> None:
        del self.rows[position.get("rows", 0) :]

    @property
    def stop_signal(self) -> int | None:
        stops = bool(self.rows) and self.rows[-1]["step"] >= self.stop_after
        return signal.SIGTERM if stops else None

    def say(self, text: str) -> None:
        pass


class RandomBatches:
    """A source whose state counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        assert step == self.asked or step == 0, "the state was not restored"
        self.asked += 1
        return batches(step)

    def state_dict(self) -> dict[str, Any]:
        return {"asked": self.asked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.asked = state["asked"]


def batches(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(0, 257, (4, 33), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def run_loop(
    folder: Path,
    *overrides: str,
    log: MemoryLog | None = None,
    lr: str = "3e-3",
    scaler: LossScaler | None = None,
    fingerprint: str = "",
    losses: Callable[[int], float] = lambda step: 1.0 + step,
) -> tuple[Outcome, MemoryLog, torch.nn.Module]:
    """`losses` are those of the evaluations, by step."""
    config = composed(*TINY, f"lr={lr}", *overrides)
    model = tiny_model(config.seed)
    log = log or MemoryLog()
    steps = config.budget.steps
    objective = NextToken(model)
    setup = TrainingSetup(
        model=model,
        objective=objective,
        weight=objective.weight,
        source=RandomBatches(),
        optimizer=build_optimizer(config.optimizer, model),
        schedule=build_schedule(config.schedule, config.optimizer.lr, steps),
        evaluate=lambda step: {"val/loss": losses(step), "val/bits_per_byte": 2.0},
        criterion=Criterion(),
        runtime=Runtime(CPU),
        meter=Meter({"mfu": 1.0}),
        scaler=scaler,
        fingerprint=fingerprint,
    )
    checkpoints = Checkpoints(folder, config.trainer.keep_checkpoints)
    return train(setup, steps, checkpoints, log, config.trainer), log, model


def test_one_batch_is_overfitted(tmp_path: Path) -> None:
    outcome, log, _ = run_loop(
        tmp_path,
        "trainer.fixed_batch=true",
        "schedule=constant",
        "budget.steps=200",
        "trainer.checkpoint_every=200",
        lr="1e-2",
    )
    assert outcome.status == "finished"
    assert log.rows[-1]["train/loss"] < 0.05


def test_each_step_is_logged_once_and_the_best_is_kept(tmp_path: Path) -> None:
    outcome, log, _ = run_loop(tmp_path)
    assert [row["step"] for row in log.rows] == [0, 2, 4, 6, 8, 10, 12]
    assert outcome.state.best == 1.0
    assert outcome.state.evaluation["val/loss"] == 13.0
    assert [row["tokens"] for row in log.rows] == [row["step"] * 128 for row in log.rows]


def test_stopping_saves_and_resuming_is_exact(tmp_path: Path) -> None:
    _, whole, expected = run_loop(tmp_path / "a")
    outcome, log, _ = run_loop(tmp_path / "b", log=MemoryLog(stop_after=6))
    assert outcome.status == "stopped"
    log.stop_after = 10**9
    log.rows.append({"step": 99})  # logged after the checkpoint, before the kill
    outcome, log, model = run_loop(tmp_path / "b", log=log)
    assert outcome.status == "finished"
    losses = [[row.get("train/loss") for row in j.rows] for j in (whole, log)]
    assert losses[0] == losses[1]
    for a, b in zip(expected.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    run_loop(tmp_path, log=MemoryLog(stop_after=6), fingerprint="one")
    with pytest.raises(UserError, match=r"step \d+ in .* made with another"):
        run_loop(tmp_path, fingerprint="another")


def test_a_loss_that_is_not_finite_ends_the_run_unsaved(tmp_path: Path) -> None:
    outcome, log, _ = run_loop(tmp_path, "trainer.checkpoint_every=1", lr="1e30")
    assert outcome.status == "diverged"
    last = log.rows[-1]
    assert not (math.isfinite(last["train/loss"]) and math.isfinite(last["grad_norm"]))
    state, _ = Checkpoints(tmp_path, 2).load()
    assert state is not None
    assert state["step"] < last["step"]


@pytest.mark.parametrize("step", [0, 8, 12])
@pytest.mark.parametrize("found", [math.nan, math.inf])
def test_an_evaluation_that_is_not_finite_ends_the_run_unsaved(
    step: int, found: float, tmp_path: Path
) -> None:
    outcome, log, _ = run_loop(
        tmp_path,
        "trainer.checkpoint_every=1",
        losses=lambda now: found if now == step else 10.0 - now,
    )
    assert (outcome.status, outcome.state.step) == ("diverged", step)
    assert outcome.state.best == {0: None, 8: 6.0, 12: 2.0}[step]
    assert not math.isfinite(log.rows[-1]["val/loss"])
    state, _ = Checkpoints(tmp_path, 2).load()
    assert (state["step"] if state else 0) == max(0, step - 1)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_give_the_same_step(size: int) -> None:
    results = []
    for micro_batch_size in (None, size):
        model = tiny_model()
        optimizer = AdamW(model.parameters(), lr=1e-2)
        stats = optimize_step(
            NextToken(model),
            optimizer,
            batches(0),
            4 * 32,
            Runtime(CPU),
            micro_batch_size=micro_batch_size,
            max_grad_norm=1.0,
        )
        results.append((stats, [p.grad for p in model.parameters()]))
    (a, a_grads), (b, b_grads) = results
    torch.testing.assert_close(a.terms, b.terms, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(a.grad_norm, b.grad_norm, rtol=1e-5, atol=1e-6)
    for x, y in zip(a_grads, b_grads, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)


def scaled_steps(scaler: LossScaler | None, steps: int, spoil: int = -1) -> list[torch.Tensor]:
    model = tiny_model()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    objective = NextToken(model)

    def spoiled(x: torch.Tensor, y: torch.Tensor) -> Any:
        total, terms = objective(x, y)
        return total * math.inf, terms

    for step in range(steps):
        optimize_step(
            spoiled if step == spoil else objective,
            optimizer,
            batches(step if step <= spoil or spoil < 0 else step - 1),
            4 * 32,
            Runtime(CPU),
            micro_batch_size=2,
            max_grad_norm=1.0,
            scaler=scaler,
        )
    return [p.detach() for p in model.parameters()]


def test_a_scaled_loss_gives_the_same_steps_and_leaves_out_overflows() -> None:
    scaler = LossScaler()
    expected = scaled_steps(None, 5)
    # A power of two changes no digit, so that even the rounding is the same.
    assert all(map(torch.equal, scaled_steps(scaler, 5), expected))
    assert (scaler.scale, scaler.good_steps) == (2.0**16, 5)
    assert all(map(torch.equal, scaled_steps(scaler, 6, spoil=3), expected))
    assert (scaler.scale, scaler.good_steps) == (2.0**15, 2)
    scaler.good_steps = LossScaler.GROW_AFTER - 1
    scaled_steps(scaler, 1)
    assert (scaler.scale, scaler.good_steps) == (2.0**16, 0)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_evaluation_equals_torch_over_the_windows(batch_size: int) -> None:
    model = tiny_model()
    tokens = np.random.default_rng(0).integers(0, 257, 400).astype(np.uint16)
    starts = np.arange(0, 400 - 33, 32)
    lengths = np.random.default_rng(1).integers(0, 5, 257)
    evaluate = Evaluator(tokens, starts, 32, lengths, batch_size, Runtime(CPU))
    measured = evaluate(NextToken(model))
    windows = torch.from_numpy(np.stack([tokens[s : s + 33] for s in starts]).astype(np.int64))
    with torch.no_grad():
        logits = model(windows[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).item()
    assert measured["val/loss"] == pytest.approx(loss, rel=1e-5)
    size = lengths[windows[:, 1:].numpy()].sum()
    bits = loss * windows[:, 1:].numel() / math.log(2) / size
    assert measured["val/bits_per_byte"] == pytest.approx(bits, rel=1e-5)
    assert model.training


def test_budgets_buy_whole_steps() -> None:
    def steps(*overrides: str) -> int:
        return total_steps(composed(*overrides).budget, 1000, 500, 60.0)

    assert steps("budget.steps=7") == 7
    assert steps("budget=tokens", "budget.tokens=1e4") == 10
    assert steps("budget=tokens", "budget.tokens=10") == 1
    assert steps("budget=flops", "budget.flops=6e5") == 10
    assert steps("budget=tokens_per_parameter", "budget.tokens_per_parameter=20") == 10


@pytest.mark.parametrize(
    ("task", "rows_of_context"),
    [("pretrain", True), ("sft", False), ("dpo", False), ("grpo", False), ("ppo", False)],
)
def test_a_budget_of_tokens_needs_equally_many_in_every_step(
    task: str, rows_of_context: bool
) -> None:
    own = [f"task={task}", *(["task.examples.paths=[x]"] if task in ("sft", "dpo") else [])]
    config = composed(*own, "trainer.batch_size=32", "model.context_length=64")
    assert config.tokens_per_step() == (2048 if rows_of_context else None)
    for kind in ("tokens", "flops", "tokens_per_parameter"):
        if rows_of_context:
            assert composed(*own, f"budget={kind}").budget.kind == kind
            continue
        with pytest.raises(ConfigError, match=f"'budget': budget={kind} needs the same number"):
            composed(*own, f"budget={kind}")
    if task == "sft":
        packed = composed(*own, "task.packing=true", "budget=tokens", "trainer.batch_size=32")
        assert packed.tokens_per_step() == 32 * packed.model.context_length


def test_plain_checkpoint_functions_take_paths_and_files(tmp_path: Path) -> None:
    for out in (tmp_path / "a.pt", io.BytesIO()):
        model, other = tiny_model(), tiny_model(seed=1)
        optimizer, second = AdamW(model.parameters()), AdamW(other.parameters())
        cross_entropy(model(batches(0)[0]), batches(0)[1]).backward()
        optimizer.step()
        save_checkpoint(model, optimizer, 17, out)
        if isinstance(out, io.BytesIO):
            out.seek(0)
        assert load_checkpoint(out, other, second) == 17
        for a, b in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)
        states = [o.state_dict()["state"][0]["exp_avg"] for o in (optimizer, second)]
        assert torch.equal(*states)


def test_damaged_checkpoints_are_passed_over(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (1, 2, 3, 4):
        checkpoints.save(step, {"step": step, "weight": torch.arange(1000)})
    checkpoints.wait()
    assert sorted(p.name for p in tmp_path.glob("*.pt")) == [
        f"step_0000000{step}.pt" for step in (2, 3, 4)
    ]
    (tmp_path / "step_00000004.pt").write_bytes(b"")
    newer = tmp_path / "step_00000003.pt"
    newer.write_bytes(newer.read_bytes()[:500])
    state, warnings = checkpoints.load()
    assert state is not None
    assert state["step"] == 2
    assert len(warnings) == 2
    assert all("is damaged" in warning for warning in warnings)


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (1, 2):
        checkpoints.save(step, {"step": step, "weight": torch.arange(1000)})
    checkpoints.wait()
    newest = tmp_path / "step_00000002.pt"
    data = bytearray(newest.read_bytes())
    data[data.index(torch.arange(500, 510).numpy().tobytes())] ^= 1
    newest.write_bytes(data)
    torch.load(newest, weights_only=True)  # which does not notice it
    state, (warning,) = checkpoints.load()
    assert state is not None
    assert state["step"] == 1
    assert "checksum" in warning


def test_a_damaged_checkpoint_does_not_push_out_sound_ones(tmp_path: Path) -> None:
    keeps_one = ("trainer.checkpoint_every=100", "trainer.keep_checkpoints=1")
    _, log, _ = run_loop(tmp_path, *keeps_one, log=MemoryLog(stop_after=8))
    damaged = tmp_path / "step_00000009.pt"
    damaged.write_bytes(b"e" * 100_000)
    log.stop_after = 4
    outcome, _, _ = run_loop(tmp_path, *keeps_one, log=log)
    assert (outcome.status, outcome.state.step) == ("stopped", 5)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"step_00000005.pt", "step_00000009.damaged", "latest"}
    assert (tmp_path / "latest").exists()


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"), "can't allocate"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
    ],
)
def test_a_checkpoint_that_cannot_be_read_is_not_damaged(
    error: Exception, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run neither goes back nor begins again."""
    _, log, _ = run_loop(tmp_path, log=MemoryLog(stop_after=6))
    before = {path.name for path in tmp_path.iterdir()}, list(log.rows)

    def failing(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", failing)
    newest = tmp_path / "step_00000007.pt"
    with pytest.raises(UserError, match=rf"cannot read checkpoint {newest}: .*{why}.*resume="):
        run_loop(tmp_path, log=log)
    with pytest.raises(UserError, match=f"cannot read checkpoint {newest}: .*{why}"):
        read_checkpoint(newest)
    assert ({path.name for path in tmp_path.iterdir()}, log.rows) == before


def test_a_checkpoint_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2)
    checkpoints.save(1, {"step": 1})
    with pytest.raises(UserError, match="cannot write checkpoint") as error:
        checkpoints.wait()
    assert "\n" not in str(error.value)


def test_a_checkpoint_is_the_state_when_it_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the training changes while the thread writes is not in the file; shared stays shared."""
    go_on = threading.Event()
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda *args: (go_on.wait(60), save(*args)))
    weight = torch.ones(1000)
    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save(1, {"step": 1, "model": {"a": weight, "b": weight}, "list": [weight[:3]]})
    assert not list(tmp_path.glob("step_*.pt"))
    weight.zero_()
    go_on.set()
    checkpoints.wait()
    state, _ = checkpoints.load()
    assert state is not None
    assert torch.equal(state["model"]["a"], torch.ones(1000))
    assert torch.equal(state["list"][0], torch.ones(3))
    assert state["model"]["a"].data_ptr() == state["model"]["b"].data_ptr()


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".step_00000003.pt.abc.tmp").write_bytes(b"half")
    run_loop(tmp_path)
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_loss_that_stays_far_above_the_best_diverges(tmp_path: Path) -> None:
    cfg = composed(*TINY, "trainer.max_loss_rise=2", "trainer.divergence_patience=3").trainer
    state = TrainState()
    losses = [5.0, 4.0, 7.0, 7.0, 5.9, 7.0, 7.0]  # two rows are too few, and 5.9 is near enough
    assert not any(state.diverges(loss, cfg) for loss in losses)
    assert state.diverges(6.1, cfg)
    never = composed(*TINY, "trainer.max_loss_rise=null").trainer
    assert not any(TrainState(lowest=1.0).diverges(99.0, never) for _ in range(50))
    outcome, log, _ = run_loop(
        tmp_path, "budget.steps=100", "trainer.divergence_patience=3", lr="3.0"
    )
    assert outcome.status == "diverged"
    assert math.isfinite(log.rows[-1]["train/loss"])
    assert log.rows[-1]["step"] < 100


def test_dropout_is_the_same_after_a_resume(tmp_path: Path) -> None:
    _, whole, _ = run_loop(tmp_path / "a", "model.dropout=0.1")
    _, log, _ = run_loop(tmp_path / "b", "model.dropout=0.1", log=MemoryLog(stop_after=6))
    torch.manual_seed(12345)
    log.stop_after = 10**9
    run_loop(tmp_path / "b", "model.dropout=0.1", log=log)
    losses = [[row.get("train/loss") for row in j.rows] for j in (whole, log)]
    assert losses[0] == losses[1]


def test_a_resumed_run_goes_on_with_its_scale(tmp_path: Path) -> None:
    run_loop(tmp_path, log=MemoryLog(stop_after=6), scaler=LossScaler(scale=2.0**20))
    scaler = LossScaler()
    _, log, _ = run_loop(tmp_path, scaler=scaler)
    assert scaler == LossScaler(scale=2.0**20, good_steps=12)
    assert log.rows[-1]["loss_scale"] == 2.0**20


def test_devices_and_precisions() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_precision("bf16", CPU) == "bf16"
    assert resolve_precision("auto", CPU) in ("fp32", "bf16")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"trainer\.device"):
            resolve_device("cuda")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_freed_memory_is_taken_again_without_page_faults() -> None:
    code = """
import resource, torch
from lmlab.training.device import keep_freed_memory

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(2**24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(20))
keep_freed_memory()
faults(20)  # until the heap has settled
print(faults(20))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert 10 * kept < given_back
