"""A sequence's logits do not depend, bit for bit, on what else is in its batch."""

import random
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmlab.generation.engine import Engine, Generation
from lmlab.generation.kernels import Dtype
from lmlab.generation.options import Options
from lmlab.model import Transformer, build
from lmlab.tokenizer import byte_tokenizer
from tests_support import composed

TOKENIZER = byte_tokenizer(["<|endoftext|>"])
SMALL = (
    "model.d_model=64",
    "model.num_layers=2",
    "model.num_heads=4",
    "model.head_dim=32",
    "model.d_ff=96",
    "model.context_length=80",
)
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
    "moe": ("model/ffn=moe", "model.ffn.num_experts=4", "model.ffn.shared_experts=1"),
    "mlp": ("model/ffn=mlp", "model.norm=layernorm", "model/position=learned"),
    "biases": ("model.attention.bias=all", "model.tie_embeddings=true", "model.block=parallel"),
}
Request = tuple[list[int], Options]
REQUESTS = st.tuples(
    st.one_of(
        st.lists(st.integers(0, 255), min_size=1, max_size=90),
        st.lists(st.integers(0, 1), min_size=5, max_size=5),  # equal ones, and equal lengths
    ),
    st.builds(
        Options,
        max_new_tokens=st.integers(1, 12),
        temperature=st.sampled_from([0.0, 1.0]),
        seed=st.integers(0, 9),
        logprobs=st.just(2),
    ),
)


@cache
def model_of(name: str) -> Transformer:
    """An untrained model: its logits are close to each other."""
    torch.manual_seed(0)
    return build(composed(*SMALL, *CHOICES[name]).model, TOKENIZER.vocab_size)


@cache
def engine_of(name: str, dtype: Dtype | None) -> Engine:
    return Engine(model_of(name), TOKENIZER, max_batch=20, dtype=dtype)


def finish(engine: Engine, requests: list[Request], arrivals: random.Random) -> list[Generation]:
    """Submit requests while others decode."""
    queue, generations = list(requests), []
    while queue or engine.busy:
        while queue and (not engine.busy or arrivals.random() < 0.7):
            generations.append(engine.submit(*queue.pop(0)))
        engine.step()
    return generations


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
@pytest.mark.parametrize("dtype", [None, "fp32", "bf16", "int8"])
@pytest.mark.parametrize("name", CHOICES)
@settings(deadline=None, max_examples=3)
@given(
    requests=st.lists(REQUESTS, min_size=2, max_size=20),
    # Not st.randoms: an example that ends in the middle would leave the engine busy.
    arrivals=st.builds(random.Random, st.integers(0, 2**32)),
)
def test_logits_do_not_depend_on_neighbours(
    name: str, dtype: Dtype | None, requests: list[Request], arrivals: random.Random
) -> None:
    engine = engine_of(name, dtype)
    together = finish(engine, requests, arrivals)
    for request, generation in zip(requests, together, strict=True):
        (alone,) = finish(engine, [request], arrivals)
        assert generation.tokens == alone.tokens
        assert generation.logprobs == alone.logprobs
        assert generation.alternatives == alone.alternatives


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
@pytest.mark.parametrize("dtype", [None, "fp32", "bf16", "int8"])
@pytest.mark.parametrize("name", ["full", "gqa", "window"])
def test_nor_in_a_context_of_less_than_a_block(name: str, dtype: Dtype | None) -> None:
    torch.manual_seed(0)
    model = build(
        composed(*SMALL[:-1], "model.context_length=24", *CHOICES[name]).model, TOKENIZER.vocab_size
    )
    arrivals = random.Random(0)
    requests = [
        (
            [arrivals.randrange(2 + length) for _ in range(length)],
            Options(max_new_tokens=8, seed=length, logprobs=2),
        )
        for length in [3] * 12 + [7] * 12 + [1, 2, 20, 24]
    ]
    engine = Engine(model, TOKENIZER, max_batch=32, dtype=dtype)
    together = finish(engine, requests, arrivals)
    for request, generation in zip(requests, together, strict=True):
        (alone,) = finish(engine, [request], arrivals)
        assert generation.tokens == alone.tokens
        assert generation.logprobs == alone.logprobs
