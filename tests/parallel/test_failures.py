"""A mistake, or a process that is gone: every process ends with one line and exit code 1."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from processes import finish, in_processes, meeting_place, start
from scenarios import CPU, SMALL

from lmlab.command import exit_code
from lmlab.config import RunConfig
from lmlab.errors import ConfigError, UserError
from lmlab.model import Transformer, build
from lmlab.parallel import ShardedOptimizer, build_strategy, model_parallel_size
from lmlab.parallel.data_parallel import BucketedDDP
from lmlab.task.agreement import require_agreement
from lmlab.task.lifecycle import run_task
from lmlab.task.pretrain import Pretrain
from lmlab.training.distributed import DistributedContext
from lmlab.training.objective import NextToken
from tests_support import composed


def refused(context: DistributedContext, config: RunConfig) -> str:
    try:
        strategy = build_strategy(config.parallel, context.size, CPU, config.trainer.precision)
        strategy.check(build(config.model, 61, device="meta"))
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["parallel=none"], "'parallel': 'none' trains in one process, and 2 were started"),
        (["parallel=tp", "parallel.size=3"], "'parallel.size': 3 does not divide the 2 processes"),
        (["parallel=hsdp", "parallel.shard_size=4"], "'parallel.shard_size': 4 does not divide"),
        (
            ["parallel=fsdp", "parallel.gather_dtype=bf16", "trainer.precision=fp32"],
            "'parallel.gather_dtype': 'bf16' weights cannot be multiplied under",
        ),
        (
            ["parallel=tp", "model.num_heads=1"],
            "'model.num_heads': 1 heads are not divisible among the 2 processes of parallel=tp",
        ),
        (
            ["parallel=tp", "model.attention.num_kv_heads=1"],
            "'model.attention.num_kv_heads': 1 heads are not divisible among the 2 processes",
        ),
        (["parallel=tp", "model.d_ff=65"], "'model.d_ff': 65 is not divisible among the 2"),
        (
            ["parallel=tp", "model.attention.dropout=0.1", "model.attention.backend=sdpa"],
            "'model.attention.dropout': 0.1 would drop the same weights",
        ),
        (
            ["parallel=tp", "trainer.precision=fp8", "model.d_ff=48"],
            "'model.d_ff': a width of 48 leaves 24 to each of the 2 processes of parallel=tp, and",
        ),
        (
            ["parallel=tp", "trainer.precision=fp8", "model.attention.num_kv_heads=2"],
            "'model.attention.num_kv_heads': a width of 16 leaves 8 to each of the 2 processes",
        ),
    ],
)
def test_processes_that_do_not_fit(overrides: list[str], problem: str) -> None:
    config = composed(*SMALL, *overrides)
    first, second = in_processes(2, refused, config)
    assert problem in first
    assert first == second


def test_a_bucket_of_nothing() -> None:
    with pytest.raises(UserError, match=r"'parallel.bucket_size_mb': must be > 0, got 0"):
        composed("parallel=ddp_bucketed", "parallel.bucket_size_mb=0")
    with pytest.raises(ValueError, match="bucket_size_mb must be positive, got 0"):
        BucketedDDP(torch.nn.Linear(2, 2), bucket_size_mb=0)


def test_one_process_trains_whatever_the_strategy() -> None:
    for name in ("none", "ddp", "fsdp", "tp", "zero1", "ddp_naive"):
        parallel = composed(f"parallel={name}").parallel
        assert not build_strategy(parallel, 1, CPU, "fp32").sharded
        assert model_parallel_size(parallel, 1) == 1


def test_more_groups_than_sequences() -> None:
    context = DistributedContext(0, 4, model_parallel=2)
    context.check_batch(2)
    with pytest.raises(ConfigError, match=r"1 is not divisible by the 2 groups of 2 processes"):
        context.check_batch(1)
    with pytest.raises(ConfigError, match=r"2 is not divisible by the 4 processes; use a multiple"):
        DistributedContext(0, 4).check_batch(2)


def disagreement(context: DistributedContext, configs: list[RunConfig]) -> str:
    try:
        require_agreement(configs[context.rank], context)
    except UserError as error:
        return str(error)
    return ""


def test_processes_that_disagree() -> None:
    same = [composed("name=a"), composed("name=b", "data.cache_dir=elsewhere")]
    assert in_processes(2, disagreement, same) == ["", ""]
    other = [composed(), composed("lr=0.5", "parallel=ddp_bucketed")]
    first, second = in_processes(2, disagreement, other)
    assert first == second
    assert "rank 1 has another configuration than rank 0" in first
    assert "lr: 0.5, not 0.01" in first
    assert "parallel.bucket_size_mb: 25, not not set" not in first
    assert 'parallel.kind: "ddp_bucketed", not "ddp"' in first


class OutOfMemory(NextToken):
    """Fails in the third step of rank 1."""

    steps = 0

    def forward(self, *batch: torch.Tensor) -> object:  # type: ignore[override]
        self.steps += self.training
        if self.steps == 3 and os.environ["RANK"] == "1":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore")
        return super().forward(*batch)


class Hungry(Pretrain):
    def build_objective(self, model: Transformer) -> NextToken:
        return OutOfMemory(model)


def run_hungry(config: RunConfig, folder: Path, rank: int, place: dict[str, str]) -> None:
    os.environ.update(place | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
    with (folder / f"{rank}.txt").open("w") as errors, contextlib.redirect_stderr(errors):
        code = exit_code(lambda: run_task(config, folder / "run", Hungry))
    raise SystemExit(code)


def test_one_process_out_of_memory(tiny: list[str], tmp_path: Path) -> None:
    config = composed(*tiny, "parallel=fsdp")
    context = torch.multiprocessing.get_context("fork")
    place = meeting_place(2)
    processes = [
        context.Process(target=run_hungry, args=(config, tmp_path, rank, place))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [1, 1]
    first, second = ((tmp_path / f"{rank}.txt").read_text() for rank in range(2))
    assert "process 0 of 2 stops: another process exited, see its message" in first
    assert (
        "process 1 of 2 is out of memory (CUDA out of memory. Tried to allocate 20.00 GiB.); "
        "lower trainer.micro_batch_size" in second
    )
    assert "Traceback" not in first + second


def test_a_process_that_is_killed_ends_all(tiny: list[str], tmp_path: Path) -> None:
    overrides = ["parallel=fsdp", "budget.steps=100000", "hydra.run.dir=run"]
    processes = start(tmp_path, 2, *tiny, *overrides)
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        assert all(process.poll() is None for process in processes), finish(processes)
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGKILL)
    code, _, errors = finish(processes)[0]
    assert code == 1
    assert errors.splitlines()[-1].endswith(
        "process 0 of 2 stops: another process exited, see its message"
    )
    assert "Traceback" not in errors


def test_a_sharded_optimizer_refuses_another_state() -> None:
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    saved = ShardedOptimizer(weights, torch.optim.AdamW, lr=0.1).state_dict()
    with pytest.raises(ValueError, match=r"groups of \[2\] parameters do not fit groups of \[1\]"):
        ShardedOptimizer(weights[:1], torch.optim.AdamW).load_state_dict(saved)
