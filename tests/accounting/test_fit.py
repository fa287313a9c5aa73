"""The memory check: never above the measured peak, and one line for what cannot fit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lmlab.accounting import fit
from lmlab.accounting.account import Account, account
from lmlab.accounting.fit import available_memory, cgroup_limit, require_memory
from lmlab.errors import ConfigError
from tests_support import ROOT, composed

CPU = torch.device("cpu")
VOCAB = 4096
SHAPES = {
    "activations": ["model.num_layers=4", "model.context_length=256", "trainer.batch_size=16"],
    "checkpointed": [
        "model.num_layers=6",
        "model.context_length=256",
        "trainer.batch_size=16",
        "trainer.checkpoint_activations=true",
    ],
    "accumulated": [
        "model.num_layers=4",
        "model.context_length=128",
        "trainer.batch_size=16",
        "trainer.micro_batch_size=4",
    ],
    "optimizer": ["model.d_model=512", "model.num_layers=6", "trainer.batch_size=1"],
    "sgd": ["model.d_model=512", "optimizer=sgd", "optimizer.momentum=0", "trainer.batch_size=2"],
    "moe": ["model/ffn=moe", "model.num_layers=2", "trainer.batch_size=16"],
    "linear attention": ["model/attention=linear", "trainer.batch_size=32"],
    "bf16": ["trainer.precision=bf16", "model.context_length=256", "trainer.batch_size=16"],
}


def estimate(
    monkeypatch: pytest.MonkeyPatch, overrides: list[str], vocab_size: int, device: str = "cpu"
) -> int:
    """Return the smallest memory, up to 1 %, that the check accepts."""
    config = composed("model=tiny", *overrides)
    trainer = config.trainer
    precision = trainer.precision.replace("auto", "fp32")
    costs = account(
        config.model, config.optimizer, vocab_size, precision, trainer.checkpoint_activations
    )
    chunk_tokens = config.task.objective.chunk_tokens
    low, high = 0.0, 1e15
    while high - low > 0.01 * high:
        middle = (low + high) / 2
        monkeypatch.setattr(fit, "available_memory", lambda device, size=middle: int(size))
        try:
            require_memory(
                costs,
                torch.device(device),
                batch_size=trainer.batch_size,
                micro_batch_size=trainer.micro_batch_size,
                chunk_tokens=1024 if chunk_tokens == "auto" else chunk_tokens,
                steps=2,
            )
            high = middle
        except ConfigError:
            low = middle
    return int(high)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's peak memory")
@pytest.mark.parametrize("chunk_tokens", ["512", "null"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_estimate_is_below_the_measured_peak(
    shape: str, chunk_tokens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*SHAPES[shape], f"task.objective.chunk_tokens={chunk_tokens}"]
    script = ROOT / "benchmarks" / "training_memory.py"
    command = [sys.executable, str(script), "--one", "--vocab", str(VOCAB), "model=tiny"]
    done = subprocess.run([*command, *overrides], stdout=subprocess.PIPE, text=True, check=True)
    measured = json.loads(done.stdout)["bytes"]
    needed = estimate(monkeypatch, overrides, VOCAB)
    print(f"{shape}, chunk_tokens={chunk_tokens}: {needed / measured:.2f}")
    assert 0.15 * measured < needed < measured


@pytest.fixture
def costs() -> Account:
    config = composed("model=tiny")
    return account(config.model, config.optimizer, 257)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"batch_size": 10**9, "micro_batch_size": 1},
            "'trainer.batch_size': training needs at least .* TB .*batch .* TB.*"
            "lower it from 1,000,000,000",
        ),
        ({"batch_size": 10**6}, "'trainer.micro_batch_size': .* set it below 1,000,000, or set"),
        (
            {"batch_size": 10**6, "micro_batch_size": 10**5},
            "'trainer.micro_batch_size': .* for micro_batch_size=100000, .* lower it below 100,000",
        ),
    ],
)
def test_a_batch_that_cannot_fit_is_refused_in_one_line(
    costs: Account, settings: dict[str, int], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "available_memory", lambda device: 20 * 10**9)
    arguments = {"micro_batch_size": None, "chunk_tokens": 1024, "steps": 100} | settings
    with pytest.raises(ConfigError, match=message) as caught:
        require_memory(costs, CPU, **arguments)
    assert "20.00 GB are available on 'cpu'" in str(caught.value)
    assert str(caught.value).endswith("or set trainer.check_memory=false")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("overrides", "memory", "message"),
    [
        (["model.context_length=16"], 1000, "'model': .*choose a smaller one, or"),
        (
            ["model.context_length=100000"],
            2 * 10**9,
            "'model.context_length': .* lower it, or choose a smaller model, or",
        ),
    ],
)
def test_a_model_that_cannot_fit_is_refused(
    overrides: list[str], memory: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "available_memory", lambda device: memory)
    config = composed("model=tiny", *overrides)
    counted = account(config.model, config.optimizer, 257)
    with pytest.raises(ConfigError, match=message):
        require_memory(
            counted, CPU, batch_size=1, micro_batch_size=None, chunk_tokens=1024, steps=2
        )


def test_logits_that_cannot_fit_are_to_be_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "available_memory", lambda device: 10**9)
    config = composed("model=tiny", "model.context_length=4096")
    counted = account(config.model, config.optimizer, 200_000, "bf16")
    settings = {"batch_size": 1, "micro_batch_size": None, "steps": 2}
    with pytest.raises(ConfigError, match=r"'task.objective.chunk_tokens': .* set it to 1024"):
        require_memory(counted, CPU, chunk_tokens=None, **settings)
    monkeypatch.setattr(fit, "available_memory", lambda device: 10**10)
    require_memory(counted, CPU, chunk_tokens=None, **settings)


def test_every_process_has_its_share_of_the_batch(
    costs: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = costs.weight_bytes + costs.gradient_bytes + costs.optimizer_bytes
    monkeypatch.setattr(fit, "available_memory", lambda device: 100 * needed)
    settings = {"batch_size": 2**14, "micro_batch_size": None, "chunk_tokens": 1, "steps": 9}
    with pytest.raises(ConfigError):
        require_memory(costs, CPU, **settings)
    require_memory(costs, CPU, **settings, processes=2**13)


def test_memory_of_unknown_size_is_not_checked(costs: Account) -> None:
    settings = {"batch_size": 10**4, "micro_batch_size": None, "chunk_tokens": None, "steps": 9}
    assert available_memory(torch.device("mps")) is None
    require_memory(costs, torch.device("mps"), **settings)
    assert 0 < (available_memory(CPU) or 0) < 2**50


def test_limits_of_control_groups(tmp_path: Path) -> None:
    membership, root = tmp_path / "membership", tmp_path / "root"
    job = root / "slurm" / "job_1" / "step"
    job.mkdir(parents=True)
    membership.write_text("0::/slurm/job_1/step\n")
    assert cgroup_limit(membership, root) is None
    (job / "memory.max").write_text("max\n")
    assert cgroup_limit(membership, root) is None
    (job.parent / "memory.max").write_text("1000\n")  # a parent's limit holds too
    assert cgroup_limit(membership, root) == 1000
    (job / "memory.max").write_text("2000\n")
    assert cgroup_limit(membership, root) == 1000
    old = root / "memory" / "job"
    old.mkdir(parents=True)
    membership.write_text("3:cpuset:/\n4:memory:/job\n0::/\n")
    (root / "memory" / "memory.limit_in_bytes").write_text(f"{2**63 - 4096}\n")
    assert cgroup_limit(membership, root) is None
    (old / "memory.limit_in_bytes").write_text("300\n")
    assert cgroup_limit(membership, root) == 300
    assert cgroup_limit(tmp_path / "nowhere", root) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_of_a_cuda_device() -> None:
    available = available_memory(torch.device("cuda"))
    assert available is not None
    assert 0 < available <= torch.cuda.mem_get_info()[1]
