"""FlashAttention-2 in plain torch (Dao 2023): the definition of the Triton kernels.

Neither pass has the scores of more than one tile of queries and keys in memory.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from lmlab.kernels.attention_operator import (
    Heads,
    LogSumExp,
    accumulator,
    attention_function,
    attention_operator,
    new_lse,
)

TILE = 64
"""Queries and keys of a tile."""


def tiled_forward(
    q: Heads,
    k: Heads,
    v: Heads,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
) -> tuple[Heads, LogSumExp]:
    """Return softmax attention and L, the log-sum-exp of each query's scores (Dao 2023, alg. 1).

    Query i attends to key j: all j; under `causal` j <= i; within a window i - j < window. Scores
    are q k / sqrt(d), soft-capped as cap tanh(score / cap). Sums are float32 or wider.
    """
    out, lse = torch.empty_like(q), new_lse(q)
    queries, keys, values = _grouped(q, k), _shared(q, k), _shared(q, v)
    grouped_out, grouped_lse = _grouped(out, k), _grouped(lse.unsqueeze(-1), k).squeeze(-1)
    for rows in _tiles(q.shape[-2]):
        q_tile = _load(queries, rows)
        largest = q_tile.new_full(q_tile.shape[:-1], -torch.inf)
        denominator, sums = torch.zeros_like(largest), torch.zeros_like(q_tile)
        for columns in _key_tiles(rows, k.shape[-2], causal, window):
            scores = _scores(q_tile, _load(keys, columns), softcap)
            scores = _masked(scores, rows, columns, causal, window)
            updated = torch.maximum(largest, scores.amax(dim=-1))
            # A row of this tile may have no key yet: exp(-inf - 0) instead of exp(-inf + inf).
            base = updated.masked_fill(updated == -torch.inf, 0.0)
            probabilities = torch.exp(scores - base.unsqueeze(-1))
            kept = torch.exp(largest - base)
            denominator = kept * denominator + probabilities.sum(dim=-1)
            sums = kept.unsqueeze(-1) * sums + probabilities @ _load(values, columns)
            largest = updated
        grouped_out[..., rows, :] = (sums / denominator.unsqueeze(-1)).to(q.dtype)
        grouped_lse[..., rows] = largest + denominator.log()
    return out, lse


def tiled_backward(
    grad: Heads,
    q: Heads,
    k: Heads,
    v: Heads,
    out: Heads,
    lse: LogSumExp,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
) -> tuple[Heads, Heads, Heads]:
    """Return the gradients of q, k and v; probabilities are recomputed (Dao 2023, alg. 2).

    P = exp(S - L), dV = P^T dO, dP = dO V^T, D = rowsum(O dO), dS = P (dP - D).
    """
    q_grad, k_grad, v_grad = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    scale, grouped_q_grad = q.shape[-1] ** -0.5, _grouped(q_grad, k)
    queries, keys, values = _grouped(q, k), _shared(q, k), _shared(q, v)
    grads, outs = _grouped(grad, k), _grouped(out, k)
    normaliser = _grouped(lse.unsqueeze(-1), k)
    k_sums, v_sums = (torch.zeros_like(x, dtype=accumulator(x.dtype)) for x in (k, v))
    for rows in _tiles(q.shape[-2]):
        q_tile, grad_tile = _load(queries, rows), _load(grads, rows)
        delta = (_load(outs, rows) * grad_tile).sum(dim=-1, keepdim=True)
        q_sums = torch.zeros_like(q_tile)
        for columns in _key_tiles(rows, k.shape[-2], causal, window):
            k_tile, v_tile = _load(keys, columns), _load(values, columns)
            scores = _scores(q_tile, k_tile, softcap)
            masked = _masked(scores, rows, columns, causal, window)
            probabilities = torch.exp(masked - normaliser[..., rows, :])
            v_sums[..., columns, :] += _over_groups(probabilities.mT @ grad_tile, v)
            score_grad = probabilities * (grad_tile @ v_tile.mT - delta)
            if softcap is not None:
                score_grad = score_grad * (1 - (scores / softcap).square())
            q_sums += score_grad @ k_tile * scale
            k_sums[..., columns, :] += _over_groups(score_grad.mT @ q_tile, k) * scale
        grouped_q_grad[..., rows, :] = q_sums.to(q.dtype)
    return q_grad, k_grad.copy_(k_sums), v_grad.copy_(v_sums)


tiled_attention, tiled_attention_backward = attention_operator(
    "tiled_attention", tiled_forward, tiled_backward
)


TiledAttention = attention_function("TiledAttention", tiled_attention, tiled_attention_backward)


def _tiles(length: int) -> Iterator[slice]:
    return (slice(start, min(start + TILE, length)) for start in range(0, length, TILE))


def _key_tiles(rows: slice, keys: int, causal: bool, window: int | None) -> Iterator[slice]:
    """Yield the tiles of keys that any of the rows attends to."""
    for columns in _tiles(keys):
        later = causal and columns.start >= rows.stop
        before = window is not None and rows.start - (columns.stop - 1) >= window
        if not later and not before:
            yield columns


def _masked(
    scores: Tensor, rows: slice, columns: slice, causal: bool, window: int | None
) -> Tensor:
    """Return the scores with -inf where a row does not attend; most tiles need no mask."""
    above = causal and columns.stop - 1 > rows.start
    outside = window is not None and rows.stop - 1 - columns.start >= window
    if not above and not outside:
        return scores
    i = torch.arange(rows.start, rows.stop, device=scores.device).unsqueeze(-1)
    j = torch.arange(columns.start, columns.stop, device=scores.device)
    hidden = j > i
    if window is not None:
        hidden = hidden | (i - j >= window)
    return scores.masked_fill(hidden, -torch.inf)


def _scores(q: Tensor, k: Tensor, softcap: float | None) -> Tensor:
    scores = q @ k.mT * q.shape[-1] ** -0.5
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def _load(x: Tensor, rows: slice) -> Tensor:
    return x[..., rows, :].to(accumulator(x.dtype))


def _is_grouped(q: Tensor, k: Tensor) -> bool:
    return q.shape[:-2] != k.shape[:-2]


def _grouped(x: Tensor, k: Tensor) -> Tensor:
    """View (..., heads, time, d) as (..., heads of keys, group, time, d) where heads are shared."""
    return x.unflatten(-3, (k.shape[-3], -1)) if _is_grouped(x, k) else x


def _shared(q: Tensor, x: Tensor) -> Tensor:
    """View (..., heads of keys, keys, d) as (..., heads of keys, 1, keys, d) where shared."""
    return x.unsqueeze(-3) if _is_grouped(q, x) else x


def _over_groups(x: Tensor, like: Tensor) -> Tensor:
    return x.sum(dim=-3) if x.ndim > like.ndim else x
