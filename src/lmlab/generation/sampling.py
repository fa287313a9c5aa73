"""Choosing the next token, and generating text with a model."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def next_token(
    logits: Float[Tensor, "vocab"],
    temperature: float,
    top_p: float,
    generator: torch.Generator | None = None,
) -> int:
    """Draw one token: temperature 0 is argmax, `top_p` the nucleus of Holtzman et al. (2020).

    The nucleus is the smallest set of likeliest tokens whose probability reaches `top_p`.
    """
    if temperature == 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits.float() / temperature, dim=-1)
    if top_p < 1:
        sorted_p, order = probabilities.sort(descending=True, stable=True)
        outside = sorted_p.cumsum(0) - sorted_p >= top_p
        probabilities = probabilities.index_fill(0, order[outside], 0.0)
    return int(torch.multinomial(probabilities, 1, generator=generator))


@torch.no_grad()
def generate(
    model: Callable[..., Float[Tensor, "batch time vocab"]],
    prompt: list[int],
    max_new_tokens: int,
    *,
    context_length: int,
    stop: int | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    vocab_size: int | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    new_cache: Callable[[], Any] | None = None,
) -> Iterator[int]:
    """Yield new tokens until `stop` or `max_new_tokens`; the model sees the last `context_length`.

    With `new_cache`, which makes what `model(ids, cache=...)` takes, a token costs one position's
    work while the text fits into the context. `vocab_size` leaves out padding rows of the
    embedding; `generator` is on the CPU.
    """
    ids = list(prompt)
    cache, unread = new_cache() if new_cache is not None else None, len(prompt)
    for _ in range(max_new_tokens):
        if cache is not None and len(ids) <= context_length:
            logits = model(torch.tensor([ids[-unread:]], device=device), cache=cache)
        else:
            logits = model(torch.tensor([ids[-context_length:]], device=device))
        logits, unread = logits[0, -1, :vocab_size].cpu(), 1
        token = next_token(logits, temperature, top_p, generator)
        if token == stop:
            return
        ids.append(token)
        yield token
