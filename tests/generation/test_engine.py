"""The engine against the model without a cache."""

import random
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmlab.errors import UserError
from lmlab.generation.engine import Engine, Generation
from lmlab.generation.generate import generate, stream
from lmlab.generation.kernels import BFloat16, Dtype, Int8, UpcastBFloat16
from lmlab.generation.options import Options
from lmlab.generation.sampler import choose
from lmlab.generation.weights import loss_cost, packed
from lmlab.kernels.native import INSTRUCTIONS
from lmlab.model import Transformer, build
from lmlab.model.attention import backends
from lmlab.tokenizer.bpe import Tokenizer, byte_tokenizer
from tests_support import composed

TOKENIZER = byte_tokenizer(["<|endoftext|>"])
CONTEXT = 24
SMALL = (
    "model.d_model=16",
    "model.num_layers=2",
    "model.num_heads=4",
    "model.d_ff=24",
    f"model.context_length={CONTEXT}",
)
LOCAL = "model/attention@model.attention.members.local"
CHOICES: dict[str, tuple[str, ...]] = {
    "full": (),
    "gqa": ("model.attention.num_kv_heads=2",),
    "mqa": ("model.attention.num_kv_heads=1", "model.attention.logit_softcap=2.0"),
    "window": ("model/attention=sliding_window", "model.attention.window=5"),
    "strided": (
        "model/attention=strided",
        "model.attention.window=3",
        "model.attention.stride=4",
    ),
    "linear": ("model/attention=linear", "model.attention.chunk_size=4"),
    "hybrid": ("model/attention=hybrid", "model.attention.members.local.window=4"),
    "hybrid_linear": ("model/attention=hybrid", f"{LOCAL}=linear"),
    "moe": ("model/ffn=moe", "model.ffn.num_experts=4"),
    "sinusoidal": ("model/position=sinusoidal",),
    "learned": ("model/position=learned",),
    "nope": ("model/position=none",),
    "biases": ("model.attention.bias=all", "model.tie_embeddings=true", "model.block=parallel"),
}


@cache
def model_of(name: str) -> Transformer:
    torch.manual_seed(0)
    model = build(composed(*SMALL, *CHOICES[name]).model, TOKENIZER.vocab_size).eval()
    with torch.no_grad():
        model.lm_head.weight *= 3  # choices that are far from ties
    return model


@torch.no_grad()
def uncached(model: Transformer, prompt: list[int], options: Options) -> list[int]:
    """The definition: the last tokens that fit are read again for each new one."""
    rng, ids = random.Random(options.seed), (prompt or [256])[-model.context_length :]
    new: list[int] = []
    while len(new) < options.max_new_tokens:
        logits = model(torch.tensor([(ids + new)[-model.context_length :]]))[0, -1].float()
        token = choose(logits[: TOKENIZER.vocab_size], ids + new, options, rng)
        if token == 256:
            break
        new.append(token)
    return new


PROMPTS = st.lists(st.integers(0, 255), max_size=30)
SAMPLING = st.builds(
    Options,
    max_new_tokens=st.integers(1, 34),
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    top_k=st.sampled_from([None, 5]),
    top_p=st.sampled_from([1.0, 0.8]),
    min_p=st.sampled_from([0.0, 0.1]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    seed=st.integers(0, 1000),
)


@pytest.mark.parametrize("name", CHOICES)
@settings(deadline=None, max_examples=8)
@given(
    requests=st.lists(st.tuples(PROMPTS, SAMPLING), min_size=1, max_size=6),
    max_batch=st.integers(1, 4),
    fixed_batch=st.booleans(),
    arrivals=st.randoms(use_true_random=False),
)
def test_a_batch_generates_what_each_sequence_would_without_a_cache(
    name: str,
    requests: list[tuple[list[int], Options]],
    max_batch: int,
    fixed_batch: bool,
    arrivals: random.Random,
) -> None:
    """Prompts of different lengths join while others decode, and go beyond the context."""
    model = model_of(name)
    engine = Engine(model, TOKENIZER, max_batch=max_batch, fixed_batch=fixed_batch)
    queue, generations = list(requests), []
    while queue or engine.busy:
        while queue and (not engine.busy or arrivals.random() < 0.3):
            generations.append(engine.submit(*queue.pop(0)))
        engine.step()
    for (prompt, options), generation in zip(requests, generations, strict=True):
        assert generation.tokens == uncached(model, prompt, options)
        assert generation.cropped == max(0, len(prompt) - CONTEXT)
        assert generation.finish_reason in ("stop", "length")


def test_a_cancelled_sequence_makes_room_and_disturbs_nobody() -> None:
    model, options = model_of("full"), Options(max_new_tokens=12, temperature=0)
    engine = Engine(model, TOKENIZER, max_batch=2)
    first, second, third = (engine.submit([i, i + 1], options) for i in range(3))
    for _ in range(3):
        engine.step()
    engine.cancel(first)
    for _ in engine.run():
        pass
    assert first.finish_reason == "cancelled"
    assert second.tokens == uncached(model, [1, 2], options)
    assert third.tokens == uncached(model, [2, 3], options)


@pytest.mark.skipif(not INSTRUCTIONS, reason="needs the native core")
def test_a_bound_of_the_length_needs_less_memory_and_changes_nothing() -> None:
    torch.manual_seed(0)
    model = build(composed(*SMALL).model, TOKENIZER.vocab_size)
    results = []
    for longest in (None, 15):
        engine = Engine(model, TOKENIZER, dtype="fp32", longest=longest)
        options = Options(max_new_tokens=10, seed=1, logprobs=2)
        texts = [engine.submit(prompt, options) for prompt in ([1, 2, 3], [5] * 5, [7])]
        for _ in engine.run():
            pass
        results.append([(text.tokens, text.logprobs, text.alternatives) for text in texts])
        slots = 32 if longest is None else 16
        assert engine.cache.bytes == 2 * 2 * 8 * 4 * slots * 4 * 4  # whole blocks of 16
    assert results[0] == results[1]
    with pytest.raises(UserError, match="longest=15"):
        engine.submit([1] * 6, options)


def test_log_probabilities_are_those_of_the_model() -> None:
    model = model_of("full").train()
    options = Options(max_new_tokens=6, seed=3, logprobs=2, temperature=0.5)
    several: list[Generation] = generate(model, TOKENIZER, ["ab"], options, samples=3)
    assert model.training
    model.eval()
    assert len({tuple(g.tokens) for g in several}) == 3
    for generation in several:
        ids = torch.tensor([TOKENIZER.encode("ab") + generation.tokens])
        with torch.no_grad():
            expected = torch.log_softmax(model(ids), dim=-1)[0, 1:-1]
        taken = expected.gather(1, ids[0, 2:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(generation.logprobs), taken)
        top = [[i for i, _ in pairs] for pairs in generation.alternatives]
        assert top == expected.topk(2).indices.tolist()


def test_the_models_own_weights_are_read_not_copied() -> None:
    model = build(composed(*SMALL).model, TOKENIZER.vocab_size)
    engine = Engine(model, TOKENIZER)
    assert engine.model is model
    before = {n: p.clone() for n, p in model.named_parameters()}
    packed(model, "int8")
    assert all(p.requires_grad and torch.equal(p, before[n]) for n, p in model.named_parameters())


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_packed_weights_compute_the_same_up_to_their_precision(name: str, dtype: Dtype) -> None:
    model = model_of(name)
    ids = torch.randint(257, (2, CONTEXT), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, got = model(ids), packed(model, dtype)(ids).float()
    tolerance = {"fp32": 1e-5, "bf16": 0.05, "int8": 0.08}[dtype]
    assert (got - expected).norm() / expected.norm() < tolerance


def test_both_ways_to_multiply_bfloat16_agree() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(32, 16), torch.randn(3, 16).bfloat16()
    ours, native = (kind(weight, None)(x).float() for kind in (UpcastBFloat16, BFloat16))
    torch.testing.assert_close(ours, native, atol=1e-2, rtol=1e-2)


def test_text_comes_in_whole_characters_up_to_a_stop_string() -> None:
    options = Options(max_new_tokens=60, temperature=1.5, seed=1)
    model = model_of("full")
    (whole,) = generate(model, TOKENIZER, ["é"], options)
    assert whole.text == TOKENIZER.decode(whole.tokens)
    assert "".join(stream(model, TOKENIZER, "é", options)) == whole.text
    stop = whole.text[7:10]
    (stopped,) = generate(model, TOKENIZER, ["é"], Options(**vars(options) | {"stop": stop}))
    assert stopped.text == whole.text[: whole.text.index(stop)]
    assert stopped.finish_reason == "stop"


def test_a_negative_seed_is_another_one_than_its_absolute_value() -> None:
    options = Options(max_new_tokens=12, seed=-1)
    texts = [g.tokens for g in generate(model_of("full"), TOKENIZER, ["a"], options, samples=3)]
    assert len(set(map(tuple, texts))) == 3  # of -1, 0 and 1


def test_an_id_without_a_token_is_never_drawn() -> None:
    """Imported vocabularies have gaps; their rows of the head may have any logit."""
    vocab = {byte: bytes([byte]) for byte in range(256)}
    tokenizer = Tokenizer(vocab, [], {"<|endoftext|>": 299})
    torch.manual_seed(0)
    config = composed("model.d_model=32", "model.num_layers=1", "model.context_length=32").model
    model = build(config, 300).eval()
    model.lm_head.weight.data[256:299] *= 20
    engine = Engine(model, tokenizer)
    options = {"logprobs": 5, "max_new_tokens": 8}
    made = [engine.submit([97], Options(seed=seed, **options)) for seed in range(8)]
    list(engine.run())
    for generation in made:
        ids = [i for row in generation.alternatives for i, _ in row]
        assert all(i in tokenizer.vocab for i in [*generation.tokens, *ids])


def test_an_id_outside_the_vocabulary_is_one_line() -> None:
    with pytest.raises(UserError, match="token 999 is not in the vocabulary"):
        Engine(model_of("full"), TOKENIZER).submit([999], Options())


@pytest.mark.parametrize("shape", [(16, 16), (257, 24), (10, 1), (64, 64), (130, 200)], ids=str)
@pytest.mark.parametrize("rows", [1, 3, 17])
def test_int8_is_the_rounded_weight_at_any_shape(shape: tuple[int, int], rows: int) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(shape), torch.randn(rows, shape[1]).bfloat16()
    layer = Int8(weight, None)
    levels = layer.weight[: shape[0], : shape[1]].float()
    restored = levels * layer.scale[: shape[0], None].float()
    assert ((restored - weight).abs() <= weight.abs().amax(1, keepdim=True) / 127 * 0.6).all()
    torch.testing.assert_close(layer(x).float(), x.float() @ restored.T, atol=0.1, rtol=0.02)


def test_the_loss_that_rounding_costs() -> None:
    windows = torch.randint(257, (4, CONTEXT), generator=torch.Generator().manual_seed(0))
    for dtype, most in (("fp32", 1e-5), ("bf16", 0.05), ("int8", 0.05)):
        own, added = loss_cost(model_of("full"), dtype, windows)
        assert own > 1
        assert abs(added) < most


def test_masks_that_generation_caches_can_be_used_in_training() -> None:
    choice = ("model/attention=sliding_window", "model.attention.backend=flex")
    model = build(composed(*SMALL, *choice).model, TOKENIZER.vocab_size)
    generate(model, TOKENIZER, ["ab"], Options(max_new_tokens=CONTEXT))
    attention = model.blocks[0].attention.branch
    mask = backends._square_block_mask(attention.mask, CONTEXT, torch.device("cpu"))
    assert backends._square_block_mask.cache_info().hits
    assert not mask.kv_indices.is_inference()
