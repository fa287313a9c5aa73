"""A context and its continuation as tokens, as lm-evaluation-harness encodes them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lmlab.errors import UserError
from lmlab.evaluation.scorer import Request, Scorer
from lmlab.tokenizer import Tokenizer
from lmlab.tokenizer.pretokenize import Special


class Pair(NamedTuple):
    """Token ids of a context and of what follows it."""

    context: list[int]
    continuation: list[int]


def move_white_space(context: str, continuation: str) -> tuple[str, str]:
    """Return both with the white space at the end of the context moved to the continuation."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def encode_pair(
    tokenizer: Tokenizer, context: str, continuation: str, special: Special = "text"
) -> Pair:
    """Encode both together and split them where the tokens of the context alone end.

    White space at the end of the context moves to the continuation, because tokens begin with
    spaces. Where the continuation has no token of its own, both are encoded apart. The context may
    have no token. `special` is as in `Tokenizer.encode`.
    """
    context, continuation = move_white_space(context, continuation)
    before = tokenizer.encode(context, special=special)
    after = tokenizer.encode(context + continuation, special=special)[len(before) :]
    return Pair(before, after or tokenizer.encode(continuation, special=special))


def pair_request(scorer: Scorer, pair: Pair, owner: int) -> tuple[Request, bool]:
    """Return the request for the continuation's tokens, and whether the context was cropped.

    An empty context is <|endoftext|>; a long one is cropped from the left. Raises UserError when
    the continuation alone is longer than the context length.
    """
    limit = scorer.context_length
    if len(pair.continuation) > limit:
        raise UserError(
            f"a continuation of {len(pair.continuation):,} tokens is longer than the context of "
            f"{scorer.run.directory}, {limit:,} tokens"
        )
    ids: Sequence[int] = [*(pair.context or [scorer.end]), *pair.continuation]
    kept = ids[-(limit + 1) :]
    return Request(np.array(kept), len(pair.continuation), owner), len(kept) < len(ids)
