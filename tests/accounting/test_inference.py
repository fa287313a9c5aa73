"""Costs of generation against sums by hand."""

import pytest
import torch

from lmlab.accounting.inference import decode_costs, prefill_costs
from lmlab.generation.kernels import Dtype
from lmlab.generation.weights import packed
from lmlab.model import Transformer, build
from tests_support import composed

VOCAB = 100
SHAPE = (
    "model.d_model=32",
    "model.num_layers=2",
    "model.num_heads=4",
    "model.d_ff=48",
    "model.context_length=64",
    "model.attention.num_kv_heads=2",
)
QKVO, FFN, HEAD = 32 * 32 + 2 * 32 * 16 + 32 * 32, 3 * 32 * 48, 32 * VOCAB
PRODUCTS = 2 * (QKVO + FFN)
NORMS = 5 * 32


def made(*overrides: str) -> Transformer:
    return build(composed(*SHAPE, *overrides).model, VOCAB, device="meta")


def test_a_decode_step_by_hand() -> None:
    costs = decode_costs(made(), "fp32", batch=3, length=10)
    scores = 2 * 4 * 32 * 10  # two layers; 2 FLOPs for q k, and 2 for p v; 4 heads of 8; 10 keys
    assert costs.flops == 3 * (2 * (PRODUCTS + HEAD) + scores)
    cache = 2 * 2 * 16 * 10  # two layers, keys and values of two heads
    assert costs.bytes == 4 * (PRODUCTS + HEAD + NORMS + 3 * 32) + 3 * 4 * cache
    assert costs.intensity == costs.flops / costs.bytes
    assert costs.tokens_per_second(costs.bytes / 2) == pytest.approx(1.5)


def test_a_dtype_changes_the_bytes_alone() -> None:
    fp32, int8 = (decode_costs(made(), dtype, batch=1, length=10) for dtype in ("fp32", "int8"))
    assert fp32.flops == int8.flops
    weights = PRODUCTS + HEAD + NORMS + 32
    assert int8.bytes == weights + 2 * (2 * 2 * 16 * 10)


def test_a_prefill_reads_the_weights_once_and_needs_one_row_of_the_head() -> None:
    costs = prefill_costs(made(), "bf16", 64)
    scores = 2 * 4 * 32 * 64 * 64
    assert costs.flops == 64 * 2 * PRODUCTS + 2 * HEAD + scores
    assert costs.bytes == 2 * (PRODUCTS + HEAD + NORMS + 64 * 32)
    assert costs.intensity > 30 * decode_costs(made(), "bf16", batch=1, length=64).intensity


def test_windows_and_experts_bound_what_is_read() -> None:
    window = made("model/attention=sliding_window", "model.attention.window=8")
    full = decode_costs(made(), "fp32", batch=1, length=64)
    bounded = decode_costs(window, "fp32", batch=1, length=64)
    assert full.flops - bounded.flops == 2 * 4 * 32 * (64 - 8)
    experts = made("model/ffn=moe", "model.ffn.num_experts=8", "model.ffn.top_k=2")
    one, two, all_ = (
        decode_costs(experts, "int8", batch=batch, length=1).bytes for batch in (1, 2, 8)
    )
    more = 2 * 2 * FFN  # two layers, two more experts
    row = 32 + 2 * 2 * 2 * 16  # of the embedding, and the cache
    assert two - one == more + row
    assert all_ - one == 3 * more + 7 * row


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize(
    "choices",
    [
        [],
        ["model/attention=linear"],
        ["model/attention=hybrid", "model/attention@model.attention.members.local=linear"],
    ],
)
def test_the_cache_is_counted_as_it_is_allocated(choices: list[str], dtype: Dtype) -> None:
    """All slots are full: what is allocated is what the next token reads."""
    shape = [choice for choice in SHAPE if "num_kv_heads" not in choice]
    config = composed(*choices, *shape).model
    model = build(config, VOCAB)
    inference = packed(model, dtype)
    cache = inference.new_cache(1)
    with torch.inference_mode():
        inference(torch.zeros(1, 64, dtype=torch.long), cache=cache)
    without = sum(p.numel() for p in model.parameters()) - (VOCAB - 1) * 32
    read = decode_costs(model, dtype, batch=1, length=64).bytes
    assert read - without * {"fp32": 4, "bf16": 2, "int8": 1}[dtype] == cache.bytes


def test_a_tied_table_is_read_as_the_head() -> None:
    tied = decode_costs(made("model.tie_embeddings=true"), "int8", batch=1, length=1)
    apart = decode_costs(made(), "int8", batch=1, length=1)
    assert apart.bytes - tied.bytes == 32
