"""Sharded checkpoints: exact, read by any layout, atomic, checked; several processes with gloo."""

import dataclasses
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
from torch.distributed.checkpoint import FileSystemReader

from forked import Body, results_of, run_forked
from lmlab.errors import UserError
from lmlab.layout import checkpoint_of, run_of, step_of
from lmlab.model import build
from lmlab.optim import build_optimizer, build_schedule
from lmlab.parallel import build_strategy, model_parallel_size
from lmlab.training import sharded_checkpoint
from lmlab.training.checkpoint import Checkpoints, read_checkpoint
from lmlab.training.distributed import DistributedContext
from lmlab.training.loop import TrainingSetup, train
from lmlab.training.manifest import records
from lmlab.training.objective import NextToken
from lmlab.training.resume import load_weights, resume, snapshot
from lmlab.training.runtime import Runtime
from lmlab.training.sharded_checkpoint import split, staged, write_sharded
from lmlab.training.state import Criterion, TrainState
from lmlab.training.step import optimize_step
from lmlab.training.throughput import Meter
from tests_support import TINY, composed

Rows = list[dict[str, Any]]
Inject = Callable[[DistributedContext], None]
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
        tokens = tokens[self.distributed.data_rank :: self.distributed.data_size]
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
    config = composed(*TINIER, *overrides, *f"parallel={kind}".split())
    group = model_parallel_size(config.parallel, distributed.size)
    distributed = dataclasses.replace(distributed, model_parallel=group)
    device = torch.device("cpu")
    strategy = build_strategy(config.parallel, distributed.size, device, "fp32")
    torch.manual_seed(0)
    model = build(config.model, 64, device="meta" if strategy.sharded else None)
    objective = NextToken(model)
    wrapped = strategy.wrap(objective, model)
    steps = config.budget.steps
    return TrainingSetup(
        model=model,
        objective=wrapped,
        weight=objective.weight,
        source=Batches(distributed),
        optimizer=build_optimizer(config.optimizer, model, strategy.optimizer),
        schedule=build_schedule(config.schedule, config.optimizer.lr, steps),
        evaluate=lambda step: {"val/loss": 1.0},
        criterion=Criterion(),
        runtime=Runtime(device, distributed=distributed, strategy=strategy),
        meter=Meter({"mfu": 1.0}),
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


def resumed(
    kind: str, folder: Path, overrides: tuple[str, ...] = ()
) -> Callable[[DistributedContext], dict[str, Any]]:
    """Return what loads the newest checkpoint in a process and returns the state, gathered."""

    def body(distributed: DistributedContext) -> dict[str, Any]:
        setup, log = setup_of(kind, distributed, overrides), MemoryLog()
        state = resume(setup, Checkpoints(folder, 2, distributed), log)
        assert state is not None
        return gathered(snapshot(setup, state, log))

    return body


def gathered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: gathered(item) for key, item in value.items()}
    return full(value)


def assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_same(ours[key], theirs[key])
    elif isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    else:
        assert ours == theirs


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


CHANGES = [
    (("fsdp", 2), ("none", 1)),
    (("ddp", 2), ("fsdp", 2)),
    (("fsdp", 2), ("zero1", 2)),
    (("zero1", 2), ("tp", 2)),
    (("tp", 2), ("ddp", 2)),
    pytest.param(("fsdp", 4), ("fsdp", 2), marks=pytest.mark.slow),
    pytest.param(("hsdp parallel.shard_size=2", 4), ("fsdp", 2), marks=pytest.mark.slow),
    pytest.param(("tp parallel.size=2", 4), ("fsdp", 2), marks=pytest.mark.slow),
    pytest.param(("ddp", 2), ("tp parallel.size=2", 4), marks=pytest.mark.slow),
    pytest.param(("fsdp", 2), ("tp parallel.size=2", 4), marks=pytest.mark.slow),
    pytest.param(("ddp", 2), ("hsdp parallel.shard_size=2", 4), marks=pytest.mark.slow),
]
MODELS = [
    ("optimizer=adamw", "model.tie_embeddings=true"),
    ("optimizer=muon", *MOE),
    ("optimizer=sgd", "optimizer.momentum=0.9"),
]


@pytest.mark.parametrize("overrides", MODELS)
@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_another_strategy_changes_no_loss(
    tmp_path: Path, before: tuple[str, int], after: tuple[str, int], overrides: tuple[str, ...]
) -> None:
    """The state is the same bit by bit; the losses are as undisturbed, within rounding."""
    run = tmp_path / "checkpoints"
    whole = results_of(1, trained("none", tmp_path / "whole", overrides))[0]
    first = results_of(before[1], trained(before[0], run, overrides, stop_after=3))[0]
    saved, union = read_checkpoint(checkpoint_of(tmp_path)), set()
    for state in results_of(after[1], resumed(after[0], run, overrides)):
        assert_same(state["model"], saved["model"])
        optimizer = saved["optimizer"]["state"]
        held = state["optimizer"]["state"]  # of zero1 whole on rank 0, elsewhere a part
        assert_same(held, {number: optimizer[number] for number in held})
        assert_same(state["optimizer"]["param_groups"], saved["optimizer"]["param_groups"])
        union |= held.keys()
    assert union == optimizer.keys()
    for found in results_of(after[1], trained(after[0], run, overrides)):
        both = losses(first) | losses(found)
        assert both == pytest.approx(losses(whole), rel=1e-4)
    sharded = after[0].split()[0] in ("fsdp", "hsdp", "tp")
    assert checkpoint_of(tmp_path).suffix == (".dcp" if sharded else ".pt")


def test_staging_copies_only_this_process_s_shards() -> None:
    def body(distributed: DistributedContext) -> tuple[int, int, bool]:
        setup = setup_of("fsdp", distributed, ("optimizer=adamw",))
        stats(setup)
        weights, _ = staged(split(snapshot(setup, TrainState(), MemoryLog())))
        shards = {key: weight.to_local() for key, weight in weights.items()}
        own = sum(s.untyped_storage().nbytes() for s in shards.values())
        whole = sum(weight.numel() * weight.element_size() for weight in weights.values())
        parameters = {p.to_local().data_ptr() for p in setup.model.parameters()}
        return own, whole, parameters.isdisjoint(s.data_ptr() for s in shards.values())

    for own, whole, copied in results_of(2, body):
        assert own == pytest.approx(whole / 2, rel=0.01)  # the optimizer's state included
        assert copied


def stats(setup: TrainingSetup) -> None:
    """Take one step."""
    batch = setup.source(0)
    optimize_step(setup.objective, setup.optimizer, batch, 128, setup.runtime)


def saving(folder: Path, steps: int, *, at: int = 0, inject: Inject = lambda _: None) -> Body:
    """Return what saves a checkpoint after each of some steps; `inject` changes it before one."""

    def body(distributed: DistributedContext) -> None:
        setup = setup_of("fsdp", distributed, ())
        checkpoints, log = Checkpoints(folder, 2, distributed), MemoryLog()
        for step in range(1, steps + 1):
            stats(setup)
            if step == at:
                checkpoints.wait()
                inject(distributed)
            checkpoints.save(step, snapshot(setup, TrainState(step), log))
        checkpoints.wait()

    return body


def kill(distributed: DistributedContext, rank: int) -> None:
    """Kill one process as the system does, without a chance to clean up."""
    if distributed.rank == rank:
        os.kill(os.getpid(), signal.SIGKILL)


def while_staging(distributed: DistributedContext) -> None:
    original = sharded_checkpoint.DefaultStager.stage

    def stage(*args: Any) -> Any:
        found = original(*args)
        kill(distributed, 1)
        return found

    sharded_checkpoint.DefaultStager.stage = stage  # type: ignore[method-assign, assignment]


def while_writing(rank: int) -> Inject:
    """Kill a process when half of its shards are written."""

    def inject(distributed: DistributedContext) -> None:
        original = sharded_checkpoint.FileSystemWriter.write_data

        def write_data(writer: Any, plan: Any, planner: Any) -> Any:
            half = dataclasses.replace(plan, items=plan.items[: len(plan.items) // 2])
            found = original(writer, half, planner)
            kill(distributed, rank)
            return found

        sharded_checkpoint.FileSystemWriter.write_data = write_data  # type: ignore[method-assign]

    return inject


def at_the_rename(after: bool) -> Inject:
    def inject(distributed: DistributedContext) -> None:
        original = Path.rename

        def rename(path: Path, target: Path) -> Path:
            publishes = target.suffix == ".dcp"  # torch renames files as well
            if after or not publishes:
                original(path, target)
            if publishes:
                os.kill(os.getpid(), signal.SIGKILL)
            return target

        Path.rename = rename  # type: ignore[method-assign, assignment]

    return inject


def while_pruning(distributed: DistributedContext) -> None:
    """Kill the main process when half of the oldest folder is removed."""

    def rmtree(path: Path) -> None:
        (path / "manifest.json").unlink()
        (path / "values.pt").unlink()
        os.kill(os.getpid(), signal.SIGKILL)

    shutil.rmtree = rmtree  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("inject", "killed", "newest"),
    [
        (while_staging, 1, 2),
        (while_writing(0), 0, 2),
        (while_writing(1), 1, 2),
        (at_the_rename(after=False), 0, 2),
        (at_the_rename(after=True), 0, 3),
        (while_pruning, 0, 3),
    ],
    ids=["staging", "writing", "writing-1", "before-rename", "after-rename", "pruning"],
)
def test_a_kill_loses_no_finished_checkpoint(
    tmp_path: Path, inject: Inject, killed: int, newest: int
) -> None:
    folder = tmp_path / "checkpoints"
    ended = run_forked(2, saving(folder, 3, at=3, inject=inject))
    assert ended[killed][0] == -signal.SIGKILL
    assert ended[1 - killed][0] != 0, "the other process noticed"
    assert step_of(checkpoint_of(tmp_path)) == newest
    found = results_of(1, lambda context: Checkpoints(folder, 2, context).load())[0]
    assert found[0]["step"] == newest
    assert found[1] == []
    Checkpoints(folder, 2).clean()
    assert not [name for name in names(folder) if name.startswith(".")]
    assert (folder / "latest").exists()


def truncated(folder: Path) -> str:
    path = folder / "__1_0.distcp"
    os.truncate(path, path.stat().st_size // 2)
    return "__1_0.distcp has "


def missing(folder: Path) -> str:
    (folder / "__1_0.distcp").unlink()
    return "__1_0.distcp is missing"


def changed(folder: Path) -> str:
    path = folder / "__1_0.distcp"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return "the checksum of __1_0.distcp is wrong"


def without_manifest(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return "manifest.json is missing"


def test_all_processes_pass_over_the_same_damage(tmp_path: Path) -> None:
    whole = tmp_path / "whole" / "checkpoints"
    results_of(2, saving(whole, 2))
    for number, damage in enumerate((truncated, missing, changed, without_manifest)):
        folder = tmp_path / str(number) / "checkpoints"
        shutil.copytree(whole, folder, symlinks=True)
        expected = damage(folder / "step_00000002.dcp")

        def load(distributed: DistributedContext, folder: Path = folder) -> tuple[int, list[str]]:
            model = setup_of("fsdp", distributed, ()).model
            state, warnings = Checkpoints(folder, 2, distributed).load(model.state_dict())
            assert state is not None
            return state["step"], warnings

        first, second = results_of(2, load) if damage is changed else results_of(1, load) * 2
        assert first == second
        assert first[0] == 1
        (warning,) = first[1]
        assert f"step_00000002.dcp is damaged ({expected}" in warning
        with pytest.raises(UserError, match=r"is damaged .*; use another checkpoint"):
            read_checkpoint(folder / "step_00000002.dcp")


def test_a_folder_that_one_process_cannot_read_is_not_damaged(tmp_path: Path) -> None:
    results_of(2, saving(tmp_path, 2))
    before = names(tmp_path)

    def load(distributed: DistributedContext) -> str:
        def failing(*args: object) -> None:
            raise MemoryError

        model = setup_of("fsdp", distributed, ()).model
        with pytest.MonkeyPatch.context() as patch:
            if distributed.rank == 1:
                patch.setattr(FileSystemReader, "read_data", failing)
            with pytest.raises(UserError) as error:
                Checkpoints(tmp_path, 2, distributed).load(model.state_dict())
        return str(error.value)

    first, second = results_of(2, load)
    assert first == second
    assert "cannot read checkpoint" in first
    assert "step_00000002.dcp: not enough memory" in first
    assert names(tmp_path) == before


def test_a_full_disk_of_one_process_ends_all_with_one_line(tmp_path: Path) -> None:
    def fill(distributed: DistributedContext) -> None:
        if distributed.rank == 1:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    ended = run_forked(2, saving(tmp_path, 3, at=3, inject=fill))
    lines = [str(error) for _, error in ended]
    assert lines[0] == lines[1]
    assert all(isinstance(error, UserError) for _, error in ended)
    assert "step_00000003.dcp: File too large (process 1); step_00000002.dcp is safe" in lines[0]
    assert "\n" not in lines[0]
    assert names(tmp_path) == {"step_00000001.dcp", "step_00000002.dcp", "latest"}


def test_the_loop_ends_in_all_processes_when_one_cannot_write(tmp_path: Path) -> None:
    """At the next step, not at the next checkpoint."""

    def body(distributed: DistributedContext) -> Trained:
        if distributed.rank == 1:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        return trained("fsdp", tmp_path, ("trainer.checkpoint_every=1",))(distributed)

    ended = run_forked(2, body)
    assert [type(error) for _, error in ended] == [UserError] * 2
    assert str(ended[0][1]) == str(ended[1][1])
    assert "none was saved before" in str(ended[0][1])


def test_a_run_goes_back_to_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    state = {"step": 1, "model": {"a": torch.ones(2)}, "optimizer": None}
    for step in (1, 2, 3):
        write_sharded(folder / f"step_0000000{step}.dcp", split(state | {"step": step}))
    (folder / "latest").symlink_to("step_00000003.dcp")
    assert checkpoint_of(folder / "latest") == folder / "step_00000003.dcp"
    assert run_of(folder / "step_00000002.dcp") == run_of(folder / "latest") == tmp_path
    checkpoints = Checkpoints(folder, keep=2)
    checkpoints.go_back_to(folder / "step_00000002.dcp")
    expected = {"step_00000001.dcp", "step_00000002.dcp", "step_00000003.dcp.superseded", "latest"}
    assert names(folder) == expected
    assert (folder / "latest").resolve().name == "step_00000002.dcp"
    write_sharded(folder / "step_00000003.dcp", split(state | {"step": 3}))
    checkpoints.quarantine(after=2, suffix=".superseded")  # a second time
    assert names(folder) == expected
    checkpoints.write(4, state | {"step": 4})  # the folder and the file count alike
    assert names(folder) - expected == {"step_00000004.pt"}
    assert not (folder / "step_00000001.dcp").exists()
    loaded, _ = checkpoints.load()
    assert loaded is not None
    assert loaded["step"] == 4


def test_weights_of_another_model_are_one_line(tmp_path: Path) -> None:
    results_of(2, saving(tmp_path, 1))

    def body(distributed: DistributedContext) -> list[str]:
        messages = []
        for overrides in (("model.d_ff=48",), ("model.num_layers=2",)):
            model = setup_of("fsdp", distributed, overrides).model
            values = read_checkpoint(tmp_path / "step_00000001.dcp", model.state_dict())
            with pytest.raises(UserError) as error:
                load_weights(model, values["model"], "init_from=x")
            messages.append(str(error.value))
        return messages

    first, second = results_of(2, body)
    assert first == second
    assert "has the shape (32, 16) there and (48, 16) in the configured model" in first[0]
    assert "has no parameter 'blocks.1." in first[1]


def test_metadata_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/run",)

    path = tmp_path / "step_00000001.dcp"
    write_sharded(path, split({"step": 1, "model": {"a": torch.ones(2)}, "optimizer": None}))
    for payload in (Evil(), torch.nn.Linear(1, 1)):
        (path / ".metadata").write_bytes(pickle.dumps(payload))
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["files"][".metadata"] = records([path / ".metadata"])[".metadata"]
        (path / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(UserError, match=r"damaged \(\.metadata refers to"):
            read_checkpoint(path)
    assert not (tmp_path / "run").exists()
