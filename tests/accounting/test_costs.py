"""The numbers of the course, exactly; and that the counts see what a choice changes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch

from lmlab.accounting.costs import Costs, count_costs
from lmlab.accounting.count import activations, flops_by_part, forward_flops
from lmlab.accounting.text import amount
from lmlab.cli import main
from lmlab.model import build
from lmlab.text import duration
from tests_support import composed

GPT2 = 50257


def counted(*overrides: str, vocab_size: int = GPT2) -> Costs:
    config = composed(*overrides)
    return count_costs(config.model, config.optimizer, vocab_size)


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["account", "--json", *arguments]) == 0
    values: dict[str, Any] = json.loads(capsys.readouterr().out)
    return values


@pytest.mark.parametrize(
    ("size", "parameters", "flops", "shares"),
    [
        ("small", 190_460_160, "3.4963e+11", (16.6, 11.1, 49.8, 22.6)),
        ("medium", 505_629_696, "1.0331e+12", (20.0, 10.0, 59.9, 10.2)),
        ("large", 1_072_469_760, "2.2578e+12", (21.4, 8.6, 64.2, 5.8)),
        ("xl", 2_127_057_600, "4.5133e+12", (22.3, 7.1, 66.9, 3.6)),
    ],
)
def test_sizes(size: str, parameters: int, flops: str, shares: tuple[float, ...]) -> None:
    a = counted(f"model={size}")
    assert a.parameters == parameters
    assert f"{a.flops:.4e}" == flops
    assert tuple(round(100 * n / a.flops, 1) for n in a.forward_flops.values()) == shares


def test_tinystories() -> None:
    assert counted("model=tinystories", vocab_size=10_000).parameters == 22_696_448


def test_long_context() -> None:
    short, long = counted("model=xl"), counted("model=xl", "model.context_length=16384")
    assert f"{long.flops:.4e}" == "1.4952e+14"
    assert round(long.flops / short.flops) == 33
    assert round(100 * long.forward_flops["scores"] / long.flops, 1) == 55.2
    assert long.parameters == short.parameters


def test_memory_and_time() -> None:
    a = counted("model=xl", "optimizer=adamw")
    assert a.fixed_bytes == 16 * a.parameters
    assert amount(a.fixed_bytes) == "34.03 GB"
    assert amount(a.activation_bytes) == "15.52 GB"
    assert a.largest_batch(80e9) == 2
    assert a.largest_batch(40e9) == 0
    seconds = a.training_seconds(400_000 * 1024 * 1024, peak=19.5e12, mfu=0.5)
    assert round(seconds / 86400) == 6584
    assert duration(seconds) == "6,583.6 days"
    # Keys and values of 48 layers, 1600 float32 numbers each.
    assert a.cache_bytes_per_token == 48 * 2 * 1600 * 4


def test_tree_has_the_numbers_of_the_course() -> None:
    lines = {
        line.split(":")[0].strip(): line.split()
        for line in counted("model=xl").tree.splitlines()[1:]
    }
    assert lines["48 x 0-47"][4] == "40,963,200"
    assert lines["norm_in"][2] == "1,600"
    assert lines["q_proj"][2] == "2,560,000"
    tree = counted("model=xl").tree
    assert "branch: Causal()          10,240,000" in tree
    assert "branch: GLU               30,720,000" in tree


def test_tree_groups_equal_layers_and_counts_shared_weights_once() -> None:
    a = counted("model=tiny", "model/attention=hybrid", "model.tie_embeddings=true")
    assert "2 x 0,2: Serial" in a.tree
    assert "2 x 1,3: Serial" in a.tree
    assert "SlidingWindow(window=128)" in a.tree
    assert a.tree.splitlines()[-1].split()[2] == "0"
    assert int(a.tree.splitlines()[1].split()[2].replace(",", "")) == a.parameters


@pytest.mark.parametrize("difference", ["chunk_size=8", "feature_map=relu", "num_kv_heads=1"])
def test_tree_keeps_layers_apart_that_differ(difference: str) -> None:
    key = "model.attention.members"
    linear = [f"model/attention@{key}.{name}=linear" for name in ("local", "global")]
    overrides = ["model=tiny", "model/attention=hybrid", *linear]
    assert "4 x 0-3: Serial" in counted(*overrides).tree
    a = counted(*overrides, f"{key}.local.{difference}")
    assert "2 x 0,2: Serial" in a.tree
    lines = [line.split() for line in a.tree.splitlines()]
    flops = [float(line[-1]) * int(line[0]) for line in lines if line[1:2] == ["x"]]
    head = float(lines[-1][-1])
    assert sum(flops) + head == pytest.approx(a.flops, rel=1e-3)


def test_flops_by_hand_for_other_choices() -> None:
    def parts(*overrides: str) -> dict[str, int]:
        shape = ["model.d_model=8", "model.num_layers=1", "model.num_heads=2", "model.d_ff=12"]
        config = composed(*shape, "model.context_length=10", *overrides).model
        return flops_by_part(build(config, 7, device="meta"), 10)

    base = parts()
    assert base == {
        "projections": 4 * 2 * 10 * 8 * 8,
        "scores": 2 * 2 * 10 * 10 * 8,
        "ffn": 3 * 2 * 10 * 8 * 12,
        "head": 2 * 10 * 8 * 7,
    }
    for heads in (1, 4, 8):
        rope = ["model/position=none"] if heads == 8 else []
        assert parts(f"model.num_heads={heads}", *rope) == base
    gqa = parts("model.attention.num_kv_heads=1")
    assert gqa == base | {"projections": 3 * 2 * 10 * 8 * 8}
    assert parts("model/ffn=mlp")["ffn"] == 2 * 2 * 10 * 8 * 12
    moe = parts("model/ffn=moe", "model.ffn.num_experts=4", "model.ffn.shared_experts=1")
    # The router, the sum with the gates, two experts that were chosen and a shared one.
    assert moe["ffn"] == 2 * 10 * 8 * (4 + 2) + 3 * base["ffn"]
    fine = parts("model/ffn=moe", "model.ffn.num_experts=4", "model.ffn.granularity=3")
    assert fine["ffn"] == 2 * 10 * 8 * (12 + 6) + 2 * base["ffn"]  # the same active compute
    linear = parts("model/attention=linear", "model.attention.chunk_size=5")
    # In each head and each chunk: k^T v, q times the state, q k^T, its product with v.
    assert linear["scores"] == 2 * 2 * 2 * (2 * 5 * 4 * 4 + 2 * 5 * 5 * 4)


def test_activations_by_hand() -> None:
    config = composed("model.d_model=8", "model.num_layers=2", "model.num_heads=2", "model.d_ff=12")
    kept = activations(build(config.model, 7, device="meta"), 10)
    block = 2 * 10 * 8 + 3 * 10 * 8 + 2 * 2 * 100 + 10 * 8 + 10 * 8 + 2 * 10 * 12 + 10 * 8
    outside = 10 * 8 + 2 * 10 * 7
    assert kept == 2 * block + outside
    checkpointed = activations(build(config.model, 7, device="meta"), 10, checkpointed=True)
    assert checkpointed == 2 * 10 * 8 + block + outside


def test_of_blocks_that_differ_the_largest_is_computed_again() -> None:
    pattern = "model.attention.pattern=[global,local,local]"
    linear = "model/attention@model.attention.members.local=linear"
    shape = ["model.d_model=8", "model.num_layers=3", "model.num_heads=2", "model.d_ff=12"]
    hybrid = composed(*shape, "model/attention=hybrid", pattern, linear).model
    full = composed(*shape).model
    counts = [
        activations(build(c, 7, device="meta"), 50, checkpointed=True) for c in (hybrid, full)
    ]
    assert counts[0] == counts[1]


def test_precision_changes_activations_alone() -> None:
    linear = ["model=small", "model/attention=linear"]
    config = composed(*linear)
    fp32, bf16, fp16 = (
        count_costs(config.model, config.optimizer, GPT2, precision)
        for precision in ("fp32", "bf16", "fp16")
    )
    assert fp16 == bf16
    assert count_costs(config.model, config.optimizer, GPT2, "tf32") == fp32
    assert bf16.activation_bytes == fp32.activation_bytes / 2
    # Text is generated in float32, whatever the training.
    halved = ("activation_bytes", "least_activation_bytes", "logit_bytes_per_token")
    assert replace(fp32, **{name: getattr(fp32, name) // 2 for name in halved}) == bf16


def test_bounded_caches_cost_less() -> None:
    full = counted("model=small").cache_bytes
    assert counted("model=small", "model.attention.num_kv_heads=3").cache_bytes == full / 4
    window = counted("model=small", "model/attention=sliding_window", "model.attention.window=129")
    assert window.cache_bytes == full / 8
    linear = ["model=small", "model/attention=linear", "model.attention.feature_map=identity"]
    assert counted(*linear).cache_bytes == 12 * 12 * 64 * 64 * 4
    longer = counted(*linear, "model.context_length=4096")
    assert longer.cache_bytes == counted(*linear).cache_bytes


def test_optimizer_memory_is_counted() -> None:
    assert counted("optimizer=sgd").optimizer_bytes == counted().weight_bytes
    assert (
        counted("optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false").optimizer_bytes
        == 0
    )


def test_counting_leaves_the_model_as_it_was() -> None:
    model = build(composed("model.d_model=24").model, 7)
    backends = [m.backend for m in model.modules() if hasattr(m, "backend")]
    forward_flops(model, 8)
    activations(model, 8)
    assert model.training
    assert [m.backend for m in model.modules() if hasattr(m, "backend")] == backends
    assert all(not m._forward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert torch.isfinite(model(torch.zeros(1, 8, dtype=torch.long))).all()


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    run = ["model=xl", "optimizer=adamw", "budget.steps=400000", "trainer.batch_size=1024"]
    assert main(["account", *run]) == 0
    out = capsys.readouterr().out
    for text in (
        "2,127,057,600",
        "34.03 GB",
        "15.52 GB",
        "largest batch in 80.00 GB: 2",
        "6,583.6 days",
    ):
        assert text in out, text
    assert "cache in generation, in float32" in out
    values = as_json(capsys, "tokenizer=byte", "model=tiny")
    assert values["vocab_size"] == 257
    assert values["parameters"] == counted("model=tiny", vocab_size=257).parameters


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        ([], GPT2),
        (["--vocab-size", "300"], 300),
        (["tokenizer=byte", "--vocab-size", "300"], 300),
        (["model.vocab_size=100"], 100),
        (["model.vocab_size=257", "tokenizer=byte"], 257),
        (["model.vocab_size=300", "tokenizer=byte"], 300),
    ],
)
def test_the_vocabulary_is_that_of_the_run(
    arguments: list[str], rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert as_json(capsys, "model=tiny", *arguments)["vocab_size"] == rows


def test_the_command_reads_what_the_trainer_keeps(capsys: pytest.CaptureFixture[str]) -> None:
    whole = as_json(capsys, "model=tiny")
    assert as_json(capsys, "model=tiny", "trainer.precision=fp32") == whole
    for precision in ("bf16", "fp16"):
        half = as_json(capsys, "model=tiny", f"trainer.precision={precision}")
        assert half["activation_bytes"] == whole["activation_bytes"] / 2
        assert half["largest_batch"] > whole["largest_batch"]
    less = as_json(capsys, "model=tiny", "trainer.checkpoint_activations=true")
    assert less["activation_bytes"] < whole["activation_bytes"]
    assert less["largest_batch"] > whole["largest_batch"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=xll"], "config error at 'model': 'xll' is not one of"),
        (
            ["model.d_modl=3"],
            "config error at 'model.d_modl': unknown key, did you mean 'd_model'?",
        ),
        (["--mfu", "2"], "--mfu is a share of the peak, between 0 and 1, got 2"),
        (["--memory", "-1"], "must be positive, got -1"),
        (["--vocab-size", "1.5"], "must be a whole number, got 1.5"),
        (
            ["--vocab-size", "300", "model.vocab_size=400"],
            "--vocab-size 300 and model.vocab_size=400 both say how many rows",
        ),
        (
            ["tokenizer=byte", "model.vocab_size=100"],
            "config error at 'model.vocab_size': 100 is less than the tokenizer's 257; set null",
        ),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["account", *arguments]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_run_counts_checkpointed_activations(
    train: Callable[..., CompletedProcess[str]], tiny: list[str], tmp_path: Path
) -> None:
    overrides = [*tiny, "trainer.checkpoint_activations=true", "budget.steps=1"]
    done = train(*overrides, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "run" / "account.json").read_text(encoding="utf-8"))
    config = composed(*overrides)
    assert written == count_costs(config.model, config.optimizer, 257, "fp32", True).to_dict()
    assert amount(written["activation_bytes"]) in done.stdout + done.stderr
