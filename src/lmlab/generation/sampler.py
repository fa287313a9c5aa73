"""The next token of each row of logits."""

import math
import random
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmlab.errors import UserError
from lmlab.generation.options import Options
from lmlab.tokenizer import Tokenizer

Logits = Float[Tensor, "vocab"]


def unused_ids(tokenizer: Tokenizer) -> Int[Tensor, "ids"]:
    """Return the ids within the vocabulary's size that are no token, in ascending order."""
    unused = set(range(tokenizer.vocab_size)) - set(tokenizer.vocab)
    return torch.tensor(sorted(unused), dtype=torch.long)


def of_tokens(
    table: Float[Tensor, "rows all"], size: int, unused: Int[Tensor, "ids"]
) -> Float[Tensor, "rows vocab"]:
    """Return the logits of the first `size` ids on the CPU in float32, -inf where unused.

    Raises UserError for logits that are not finite, which have no next token.
    """
    table = table[:, :size].float().cpu()
    if not table.amax().isfinite():
        raise UserError(
            "the model computes logits that are not finite: its weights have diverged, or its "
            "numbers overflow in this dtype; take an earlier checkpoint, or float32"
        )
    return table.index_fill(1, unused, -torch.inf) if len(unused) else table


def filtered_probabilities(logits: Logits, options: Options) -> Float[Tensor, "vocab"]:
    """Return the probabilities that a token is drawn from, float64.

    Temperature, top_k, top_p and min_p apply in this order; each renormalises what it keeps. Equal
    logits rank by id.
    """
    if options.temperature == 0:
        return torch.zeros_like(logits, dtype=torch.float64).index_fill_(0, logits.argmax(), 1.0)
    scores = logits.double()
    scores = (scores - scores.max()) / options.temperature
    # A tiny temperature may leave -inf, never NaN: the largest is 0.
    probabilities = torch.softmax(scores, dim=0)
    if options.top_k is None and options.top_p == 1 and options.min_p == 0:
        return probabilities
    ranked, order = probabilities.sort(descending=True, stable=True)
    keep = len(ranked) if options.top_k is None else min(options.top_k, len(ranked))
    if options.top_p < 1:
        cumulative = ranked[:keep].cumsum(0)
        cumulative /= cumulative[-1].clone()
        keep = min(keep, int((cumulative < options.top_p).sum()) + 1)
    if options.min_p > 0:
        keep = min(keep, int((ranked >= options.min_p * ranked[0]).sum()))
    kept = ranked[:keep]
    return torch.zeros_like(probabilities).index_put_((order[:keep],), kept / kept.sum())


def penalised(logits: Logits, seen: Sequence[int], penalty: float) -> Logits:
    """Return the logits with the tokens in `seen` made less likely (Keskar et al. 2019)."""
    if penalty == 1 or not seen:
        return logits
    ids = torch.tensor(sorted(set(seen)), device=logits.device)
    chosen = logits[ids]
    chosen = torch.where(chosen > 0, chosen / penalty, chosen * penalty)
    # An extreme penalty gives the largest numbers, never infinity or NaN.
    return logits.index_copy(0, ids, torch.nan_to_num(chosen))


def draw(probabilities: Float[Tensor, "vocab"], uniform: float) -> int:
    """Return the token whose interval of the cumulative distribution holds `uniform` in [0, 1)."""
    cumulative = probabilities.cumsum(0)
    total = float(cumulative[-1])
    target = min(uniform * total, math.nextafter(total, 0))
    return int(torch.searchsorted(cumulative, target, right=True))


def choose(logits: Logits, seen: Sequence[int], options: Options, rng: random.Random) -> int:
    """Return the next token after the text `seen`, from logits on the CPU.

    A token takes one draw from `rng`, whatever the options are, and none at temperature 0.
    """
    logits = penalised(logits, seen, options.repetition_penalty)
    if options.temperature == 0:
        return int(logits.argmax())
    return draw(filtered_probabilities(logits, options), rng.random())


def choose_rows(
    table: Float[Tensor, "rows vocab"],
    seen: Sequence[Sequence[int]],
    options: Sequence[Options],
    rngs: Sequence[random.Random],
) -> list[int]:
    """Return what `choose` does for each row; rows without filters are computed together."""
    plain: dict[float, list[int]] = {}
    tokens = [0] * len(options)
    for row, wanted in enumerate(options):
        if _is_plain(wanted):
            plain.setdefault(wanted.temperature, []).append(row)
        else:
            tokens[row] = choose(table[row], seen[row], wanted, rngs[row])
    for temperature, rows in plain.items():
        part = table if len(rows) == len(options) else table[rows]
        if temperature == 0:
            chosen = part.argmax(dim=1)
        else:
            scores = part.double()
            if temperature != 1:  # the softmax subtracts the maximum itself
                scores = (scores - scores.amax(dim=1, keepdim=True)) / temperature
            cumulative = torch.softmax(scores, dim=1).cumsum(dim=1)
            totals = cumulative[:, -1].tolist()
            targets = [
                min(rngs[row].random() * total, math.nextafter(total, 0))
                for row, total in zip(rows, totals, strict=True)
            ]
            places = torch.tensor(targets, dtype=torch.float64)[:, None]
            chosen = torch.searchsorted(cumulative, places, right=True)[:, 0]
        for row, token in zip(rows, chosen.tolist(), strict=True):
            tokens[row] = token
    return tokens


def _is_plain(options: Options) -> bool:
    """Whether the temperature alone changes the distribution."""
    return (
        options.top_k is None
        and options.top_p == 1
        and options.min_p == 0
        and options.repetition_penalty == 1
    )
