"""Rollouts: responses of the policy to prompts, with seeds that do not depend on the batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from lmlab.generation.engine import Engine
from lmlab.generation.options import Options
from lmlab.generation.weights import Dtype
from lmlab.model import Transformer
from lmlab.tokenizer import Tokenizer


@dataclass(frozen=True)
class Request:
    """A response to generate."""

    prompt: tuple[int, ...]
    """Tokens of the prompt."""
    seed: int
    """Seed of its random draws."""


@dataclass(frozen=True)
class Response:
    """What the policy answered."""

    tokens: tuple[int, ...]
    """Generated tokens, with the end token if the policy ended the response by it."""
    text: str
    """Generated text, without a stop string that is not among the decoding's `kept`."""
    log_probs: tuple[float, ...]
    """Log-probability of each token by the generation engine, in nats."""
    complete: bool
    """The response ended by itself; False: it reached the longest length."""


@dataclass(frozen=True)
class Decoding:
    """How responses are generated."""

    max_new_tokens: int
    stop: tuple[str, ...] = ()
    """Texts that end a response; a stop string's tokens are part of the response."""
    kept: tuple[str, ...] = ()
    """Those of `stop` that stay at the end of the text: see `rewards.kept_stops`."""
    min_new_tokens: int = 0
    """The end token is not drawn before."""
    temperature: float = 1.0
    """1: the policy's own distribution, of which training needs the samples; 0: greedy."""
    max_batch: int = 256
    """Responses generated at a time."""
    dtype: Dtype | None = None
    """Weights of generation; None: the policy's own."""


def response_seed(seed: int, rollout: int, prompt: int, sample: int) -> int:
    """Return the seed of a response: a hash of the run's seed and of its place."""
    place = f"{seed}/{rollout}/{prompt}/{sample}".encode()
    return int.from_bytes(blake2b(place, digest_size=8).digest(), "big")


def generate_responses(
    policy: Transformer,
    tokenizer: Tokenizer,
    requests: Sequence[Request],
    decoding: Decoding,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Response] | None:
    """Return the responses in the order of the requests; None once `should_stop` returns true.

    Responses join and leave the batch as others end (continuous batching). Equal prompts that
    follow each other are read once. The weights are those the policy has now.
    """
    engine = Engine(
        policy,
        tokenizer,
        max_batch=max(1, min(decoding.max_batch, len(requests))),
        dtype=decoding.dtype,
        longest=max((len(r.prompt) for r in requests), default=1) + decoding.max_new_tokens,
    )
    generations = [
        engine.submit(
            request.prompt,
            Options(
                max_new_tokens=decoding.max_new_tokens,
                min_new_tokens=decoding.min_new_tokens,
                temperature=decoding.temperature,
                seed=request.seed,
                stop=decoding.stop,
                logprobs=0,
            ),
        )
        for request in requests
    ]
    while engine.busy:
        if should_stop():
            return None
        engine.step()
    responses = []
    for generation in generations:
        tokens = list(generation.tokens)
        if len(generation.logprobs) > len(tokens) and engine.end is not None:
            tokens.append(engine.end)
        ended_by = generation.stream.ended_by
        kept = ended_by if ended_by in decoding.kept else None
        responses.append(
            Response(
                tuple(tokens),
                generation.text + (kept or ""),
                tuple(generation.logprobs),
                generation.finish_reason == "stop",
            )
        )
    return responses
