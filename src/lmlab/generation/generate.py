"""Text for prompts: all at once, or piece by piece."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from lmlab.generation.engine import Engine, Generation
from lmlab.generation.options import Options
from lmlab.generation.weights import Dtype
from lmlab.model.transformer import Transformer
from lmlab.tokenizer import Tokenizer


def generate(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    options: Options,
    *,
    dtype: Dtype | None = None,
    max_batch: int = 8,
    samples: int = 1,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Generation]:
    """Return `samples` continuations of each prompt, in the order of the prompts.

    Sample i of each prompt uses `options.seed + i`. Once `should_stop` returns true, what is not
    finished is cancelled. `dtype=None` uses the model's own weights without a copy.
    """
    size = max(1, min(max_batch, len(prompts) * samples))
    engine = Engine(model, tokenizer, max_batch=size, dtype=dtype)
    generations = [
        engine.submit(ids, replace(options, seed=options.seed + i))
        for ids in map(tokenizer.encode, prompts)
        for i in range(samples)
    ]
    while engine.busy:
        if should_stop():
            for generation in generations:
                engine.cancel(generation)
            break
        engine.step()
    return generations


def stream(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str,
    options: Options,
    *,
    dtype: Dtype | None = None,
) -> Iterator[str]:
    """Yield the continuation of a prompt, in pieces of whole characters."""
    engine = Engine(model, tokenizer, max_batch=1, dtype=dtype)
    engine.submit(tokenizer.encode(prompt), options)
    for piece in engine.run():
        if piece.text:
            yield piece.text
