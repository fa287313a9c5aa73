"""Sampling against probabilities worked by hand."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lmlab.generation.sampling import generate, next_token
from lmlab.model import build
from tests_support import TINY, composed

LOGITS = torch.tensor([0.5, 0.2, 0.2, 0.1]).log()


def draw(count: int, **options: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    options = {"temperature": 1.0, "top_p": 1.0} | options
    tokens = [next_token(LOGITS, generator=generator, **options) for _ in range(count)]
    return torch.bincount(torch.tensor(tokens), minlength=4) / count


def test_temperature_zero_is_argmax() -> None:
    assert draw(5, temperature=0)[0] == 1


def test_temperature_one_draws_the_distribution() -> None:
    torch.testing.assert_close(draw(4000), LOGITS.exp(), atol=0.03, rtol=0)


def test_temperature_sharpens() -> None:
    sharp = LOGITS.exp() ** 2
    torch.testing.assert_close(draw(4000, temperature=0.5), sharp / sharp.sum(), atol=0.03, rtol=0)


def test_the_nucleus_is_the_smallest_set_that_reaches_p() -> None:
    torch.testing.assert_close(draw(2000, top_p=0.5), torch.tensor([1.0, 0, 0, 0]))
    wanted = torch.tensor([5 / 7, 2 / 7, 0, 0])
    torch.testing.assert_close(draw(4000, top_p=0.7), wanted, atol=0.03, rtol=0)


@given(top_p=st.floats(1e-6, 1), seed=st.integers(0, 100))
def test_the_likeliest_token_is_always_in_the_nucleus(top_p: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    token = next_token(LOGITS, temperature=1.0, top_p=top_p, generator=generator)
    cumulative = LOGITS.exp().cumsum(0) - LOGITS.exp()
    assert cumulative[token] < top_p + 1e-6


def test_generation_stops_crops_and_leaves_out_padding() -> None:
    seen = []

    def model(ids: torch.Tensor) -> torch.Tensor:
        seen.append(ids.shape[1])
        logits = torch.zeros(1, ids.shape[1], 6)
        logits[:, :, 5] = 9  # a padding row
        logits[0, -1, (ids[0, -1] + 1) % 5] = 5
        return logits

    options = {"context_length": 3, "temperature": 0.0, "vocab_size": 5}
    assert list(generate(model, [0], 6, stop=4, **options)) == [1, 2, 3]
    assert list(generate(model, [0], 6, **options)) == [1, 2, 3, 4, 0, 1]
    assert max(seen) == 3


def test_a_cache_changes_no_token_and_reads_each_once() -> None:
    """The prompt, 8 tokens within the context of 32, then windows that slide past its end."""
    torch.manual_seed(0)
    model = build(composed(*TINY).model, 257).eval()
    read: list[int] = []

    def counted(ids: torch.Tensor, **options: object) -> torch.Tensor:
        read.append(ids.shape[1])
        return model(ids, **options)

    texts = []
    for new_cache in (None, model.new_cache):
        read.clear()
        tokens = generate(
            counted, list(range(20)), 16, context_length=32, temperature=0, new_cache=new_cache
        )
        texts.append(list(tokens))
    assert texts[0] == texts[1]
    assert read == [20] + [1] * 12 + [32] * 3
