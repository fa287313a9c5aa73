"""Sampling options against transformers, and by hand; text streams against whole texts."""

import random
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lmlab.errors import UserError
from lmlab.generation.options import Options
from lmlab.generation.sampler import (
    choose,
    choose_rows,
    draw,
    filtered_probabilities,
    of_tokens,
    penalised,
)
from lmlab.generation.text import TextStream

HAND = torch.tensor([0.1, 0.5, 0.15, 0.25]).log()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.5, 0.15, 0.25]),
        ({"temperature": 0.0}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 2 / 3, 0, 1 / 3]),
        ({"top_p": 0.5}, [0, 1, 0, 0]),
        ({"top_p": 0.6}, [0, 2 / 3, 0, 1 / 3]),
        ({"min_p": 0.4}, [0, 2 / 3, 0, 1 / 3]),
        ({"top_k": 3, "top_p": 0.8}, [0, 2 / 3, 0, 1 / 3]),
    ],
)
def test_probabilities_by_hand(options: dict[str, float], expected: list[float]) -> None:
    got = filtered_probabilities(HAND.double(), Options(**options))  # type: ignore[arg-type]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


@given(
    seed=st.integers(0, 10_000),
    temperature=st.floats(0.2, 3),
    top_k=st.integers(1, 12),
    top_p=st.floats(0.05, 1),
    min_p=st.floats(0, 0.9),
    penalty=st.floats(0.5, 2),
)
def test_options_equal_those_of_transformers(
    seed: int, temperature: float, top_k: int, top_p: float, min_p: float, penalty: float
) -> None:
    torch.manual_seed(seed)
    logits, seen = torch.randn(1, 12, dtype=torch.float64) * 3, torch.randint(12, (1, 5))
    processors = [RepetitionPenaltyLogitsProcessor(penalty), TemperatureLogitsWarper(temperature)]
    processors += [TopKLogitsWarper(top_k), TopPLogitsWarper(top_p), MinPLogitsWarper(min_p)]
    expected = torch.softmax(LogitsProcessorList(processors)(seen, logits.clone()), dim=-1)[0]
    options = Options(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    got = filtered_probabilities(penalised(logits[0], seen[0].tolist(), penalty), options)
    ranked = torch.softmax(logits[0], 0)
    assume(top_p < 0.999 or len(ranked) == 12)
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8).filter(any), st.floats(0, 1))
def test_a_draw_is_the_inverse_of_the_cumulative_distribution(
    weights: list[float], uniform: float
) -> None:
    token = draw(torch.tensor(weights, dtype=torch.float64), uniform)
    assert weights[token] > 0
    assert sum(weights[:token]) <= uniform * sum(weights) * (1 + 1e-12)


@pytest.mark.parametrize("penalty", [1e-320, 1e-40, 1e39, 1e308])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_extreme_penalty_still_draws_a_token(penalty: float, temperature: float) -> None:
    logits = torch.tensor([[2.0, -1.0, 0.0, 1.0]])
    options = Options(repetition_penalty=penalty, temperature=temperature)
    (token,) = choose_rows(logits, [[0, 1, 2]], [options], [random.Random(0)])
    assert token == (0 if penalty < 1 else 3)


def test_draws_follow_the_distribution() -> None:
    rng, options = random.Random(0), Options(top_k=3)
    drawn = torch.tensor([choose(HAND, [], options, rng) for _ in range(4000)])
    expected = filtered_probabilities(HAND, options).float()
    got = torch.bincount(drawn, minlength=4) / 4000
    torch.testing.assert_close(got, expected, atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature must be a number of at least 0, got -1"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"top_k": 0}, "top_k must be an integer of at least 1, or none, got 0"),
        ({"top_p": 0}, "top_p must be a number above 0 and at most 1, got 0"),
        ({"top_p": 1.1}, "top_p must be"),
        ({"min_p": 2}, "min_p must be a number from 0 to 1, got 2"),
        ({"repetition_penalty": 0}, "repetition_penalty must be a number above 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be an integer of at least 1"),
        ({"max_new_tokens": 1.5}, "max_new_tokens must be an integer of at least 1"),
        ({"seed": "a"}, "seed must be an integer, got 'a'"),
        ({"stop": ("",)}, "stop must be strings that are not empty"),
    ],
)
def test_options_out_of_range_are_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        Options(**options)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=8))
def test_pieces_joined_are_the_decoded_whole(data: bytes, cuts: list[int]) -> None:
    bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    stream = TextStream()
    pieces = [stream.push(data[a:b]) for a, b in pairwise(bounds)]
    assert "".join(pieces) + stream.finish() == data.decode(errors="replace")


@given(
    st.text("ab\u00e9", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)
)
def test_text_ends_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    stream, got = TextStream(stop), ""
    for byte in text.encode():
        got += stream.push(bytes([byte]))
        if stream.stopped:
            break
    got += stream.finish()
    ends = [text.index(s) + len(s) for s in stop if s in text]
    assert stream.stopped == bool(ends)
    if not ends:
        assert got == text
    else:  # of those that are complete first, the one that begins first
        read = text[: min(ends)]
        at = min(read.index(s) for s in stop if s in read)
        assert got == read[:at]
        assert stream.ended_by == max((s for s in stop if read[at:].startswith(s)), key=len)


@given(
    seed=st.integers(0, 1000),
    temperatures=st.lists(st.sampled_from([0.0, 0.7, 1.0, 2.0]), min_size=1, max_size=8),
    filtered=st.booleans(),
)
def test_rows_together_are_as_rows_by_themselves(
    seed: int, temperatures: list[float], filtered: bool
) -> None:
    table = 3 * torch.randn(len(temperatures), 257, generator=torch.Generator().manual_seed(seed))
    options = [Options(temperature=t, seed=i) for i, t in enumerate(temperatures)]
    if filtered:
        options[0] = Options(temperature=1.0, top_p=0.8, repetition_penalty=1.3)
    seen = [[1, 2, 3]] * len(options)
    together = choose_rows(table, seen, options, [random.Random(i) for i in range(len(options))])
    alone = [choose(table[i], seen[i], options[i], random.Random(i)) for i in range(len(options))]
    assert together == alone


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_have_no_next_token(value: float) -> None:
    unused = torch.tensor([1])
    table = torch.zeros(2, 5)
    table[1, 4] = value  # of an id beyond the vocabulary
    assert of_tokens(table, 4, unused).tolist() == [[0.0, -torch.inf, 0.0, 0.0]] * 2
    table[1, 3] = value
    with pytest.raises(UserError, match="logits that are not finite: its weights have diverged"):
        of_tokens(table, 4, unused)
