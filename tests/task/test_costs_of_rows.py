"""Memory and FLOPs of tasks whose rows are shorter than the context."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lmlab.accounting import fit
from lmlab.accounting.fit import LeastRows
from lmlab.alignment.batches import PreferencePairs
from lmlab.config import RunConfig, load_yaml
from lmlab.errors import ConfigError
from lmlab.kernels.onednn import ROW_MULTIPLE
from lmlab.task import run as train
from lmlab.task.dpo import DPO
from lmlab.task.sft import SFT
from lmlab.training.runtime import Runtime
from tests_support import TINY, composed

CPU = torch.device("cpu")
OWN = tuple(
    text for text in TINY if not text.startswith(("data=", "task.", "tokenizer=", "trainer.eval_w"))
)
FULL = 128


def write(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    return write(
        tmp_path / "sums.jsonl",
        [
            {"prompt": f"{a}+{b}=", "completion": str(a + b) * (1 + a % 3)}
            for a in range(9)
            for b in range(9)
        ],
    )


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write(
        tmp_path / "pairs.jsonl",
        [
            {"prompt": f"{a}+{b}=", "chosen": str(a + b), "rejected": "no" * (1 + a % 3)}
            for a in range(9)
            for b in range(9)
        ],
    )


def sft(path: Path, *overrides: str) -> RunConfig:
    task = ("task=sft", f"task.examples.paths=['{path}']", "task.sample.tokens=0")
    context = f"model.context_length={FULL}"
    return composed(*OWN, "tokenizer=byte", *task, context, "model.attention.backend=eager",
                    *overrides)  # fmt: skip


def dpo(path: Path, parent: Path, *overrides: str) -> RunConfig:
    task = ("task=dpo", f"task.examples.paths=['{path}']", f"init_from={parent}")
    return composed(*OWN, *task, f"model.context_length={FULL}", *overrides)


@pytest.fixture
def parent(sums: Path, tmp_path: Path) -> Path:
    train(sft(sums, "budget.steps=1"), tmp_path / "parent")
    return tmp_path / "parent"


def result_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "result.json").read_text())
    return found


def counted(objective: torch.nn.Module, batch: Any, vocab_size: int) -> int:
    """Return the FLOPs of a forward pass by torch, without what rounds the labels up."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        objective(*batch)
    return counter.get_total_flops() - (-batch.labels_learnt % ROW_MULTIPLE) * 2 * 32 * vocab_size


@pytest.mark.parametrize("packing", [False, True])
def test_flops_are_those_of_the_rows(packing: bool, sums: Path, tmp_path: Path) -> None:
    config = sft(sums, f"task.packing={packing}", "budget.steps=3", "trainer.log_every=1")
    train(config, tmp_path / "run")
    task = SFT(config, Runtime(CPU))
    task.prepare(print)
    objective, source = task.build_objective(task.build_model()), task.build_source()
    batches = [source(step) for step in range(3)]
    flops = 3 * sum(counted(objective, batch, task.tokenizer.vocab_size) for batch in batches)
    result = result_of(tmp_path / "run")
    assert result["flops"] == flops < result["tokens"] * result["flops_per_token"]


def test_a_pair_is_two_rows_and_the_reference_counts(
    pairs: Path, parent: Path, tmp_path: Path
) -> None:
    config = dpo(pairs, parent, "budget.steps=2")
    train(config, tmp_path / "run")
    task = DPO(config, Runtime(CPU))
    task.prepare(print)
    objective = task.build_objective(task.build_model())
    every = [*task.train, *task.held_out]
    collate = PreferencePairs(every, FULL, torch.zeros(len(every), 2))
    batches = [range(start, min(start + 4, len(every))) for start in range(0, len(every), 4)]
    vocab_size = task.tokenizer.vocab_size
    reference = sum(counted(objective, collate(numbers), vocab_size) for numbers in batches)
    source = task.shuffled(PreferencePairs(task.train, FULL, torch.zeros(len(every), 2)),
                           len(task.train))  # fmt: skip
    steps = [source(step) for step in range(2)]
    training = 3 * sum(counted(objective, batch, vocab_size) for batch in steps)
    assert result_of(tmp_path / "run")["flops"] == reference + training
    assert all(batch.input_ids.shape[:2] == (4, 2) for batch in steps)


def test_flops_go_on_after_a_pause(sums: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(sft(sums, "budget.steps=6", "trainer.keep_checkpoints=9"), whole)
    train(sft(sums, "budget.steps=6", "trainer.keep_checkpoints=9"), parts)
    (parts / "result.json").unlink()
    for step in (6,):
        (parts / "checkpoints" / f"step_{step:08d}.pt").unlink()
    train(load_yaml(parts / "config.yaml"), parts)
    assert result_of(parts)["flops"] == result_of(whole)["flops"]


def test_flops_of_rollouts_are_not_reported(parent: Path, tmp_path: Path) -> None:
    own = ("task.rollout.prompts=2", "task.rollout.samples=2", "task.rollout.max_new_tokens=4",
           "task.evaluation.problems=4", "budget.steps=1", "trainer.log_every=1")  # fmt: skip
    train(composed(*OWN, f"init_from={parent}", "task=grpo", f"model.context_length={FULL}", *own),
          tmp_path / "run")  # fmt: skip
    assert result_of(tmp_path / "run")["flops"] is None
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert any("tokens_per_second" in row for row in rows)
    assert not any("mfu" in row for row in rows)


def test_the_least_that_rows_need(sums: Path, pairs: Path, parent: Path) -> None:
    task = SFT(sft(sums), Runtime(CPU))
    task.prepare(print)
    assert task.least_rows(100) == LeastRows(tokens=16, labels=2)
    assert task.least_rows(1) == LeastRows(tokens=8, labels=2)  # four short examples, perhaps
    packed = SFT(sft(sums, "task.packing=true"), Runtime(CPU))
    packed.prepare(print)
    assert packed.least_rows(1) == LeastRows(tokens=FULL, labels=2)
    both = DPO(dpo(pairs, parent), Runtime(CPU))
    both.prepare(print)
    assert both.least_rows(100) == LeastRows(tokens=16, labels=5, sequences=2)


def test_short_rows_are_not_refused(
    sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "available_memory", lambda device: 10**9)
    large = ("trainer.batch_size=128", "model.context_length=65536", "budget.steps=1",
             "model.attention.backend=sdpa")  # fmt: skip
    train(sft(sums, *large), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"training needs at least"):
        train(sft(sums, *large, "task.packing=true"), tmp_path / "packed")
