"""The forward pass of FlashAttention-2 in Triton (Dao 2023, algorithm 1).

Scores are kept in base 2, because the hardware has an instruction for 2^x.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def capped_scores(q, k, scale, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr):
    """Return `q k scale`, soft-capped where SOFTCAP is positive."""
    scores = tl.dot(q, k, input_precision=PRECISION) * scale
    if SOFTCAP > 0:
        # tanh(x) = 1 - 2 / (e^(2x) + 1), which neither overflows nor needs a library.
        scores = SOFTCAP - 2 * SOFTCAP / (tl.exp(scores * (2 / SOFTCAP)) + 1)
    return scores


@triton.jit
def hide(scores, rows, columns, keys, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """Return the scores with -inf where the query of a row does not attend to a key."""
    seen = columns < keys
    if CAUSAL:
        seen = seen & (columns <= rows)
    if WINDOW > 0:
        seen = seen & (rows - columns < WINDOW)
    return tl.where(seen, scores, float("-inf"))


@triton.jit
def attend(
    sums, denominator, largest, q, k_base, v_base, k_row, v_row, rows, first, last, keys, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add the tiles of keys from `first` to `last` to the running softmax of a tile of queries."""
    d = tl.arange(0, BLOCK_D)
    for start in range(first, last, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        k_places, v_places = k_base + columns[None, :] * k_row, v_base + columns[:, None] * v_row
        if MASKED or D < BLOCK_D:
            inside = columns < keys
            k = tl.load(k_places + d[:, None], mask=inside[None, :] & (d[:, None] < D), other=0.0)
        else:
            k = tl.load(k_places + d[:, None])
        scores = capped_scores(q, k, scale, SOFTCAP, PRECISION) * LOG2_E
        if MASKED:
            scores = hide(scores, rows[:, None], columns[None, :], keys, CAUSAL, WINDOW)
        updated = tl.maximum(largest, tl.max(scores, 1))
        base = updated
        if MASKED:  # a row of this tile may have no key yet
            base = tl.where(updated == float("-inf"), 0.0, updated)
        p = tl.exp2(scores - base[:, None])
        kept = tl.exp2(largest - base)
        denominator = denominator * kept + tl.sum(p, 1)
        if MASKED or D < BLOCK_D:
            inside = columns < keys
            v = tl.load(v_places + d[None, :], mask=inside[:, None] & (d[None, :] < D), other=0.0)
        else:
            v = tl.load(v_places + d[None, :])
        sums = tl.dot(p.to(v.dtype), v, sums * kept[:, None], input_precision=PRECISION)
        largest = updated
    return sums, denominator, largest


@triton.jit
def attention_forward_kernel(
    q, k, v, out, lse,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, o_batch, o_head, o_row,
    heads, group, queries, keys, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the output and L of one tile of queries of one head.

    Grid: (tiles of queries, batch x heads). The loop over keys has three parts: tiles that the left
    edge of the window cuts, tiles without a mask, and tiles on the diagonal or the end.
    """
    # The last tiles have the most keys under a causal mask: they start first.
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    batch, kv_head = batch.to(tl.int64), (head // group).to(tl.int64)
    k_base = k + batch * k_batch + kv_head * k_head
    v_base = v + batch * v_batch + kv_head * v_head
    start = tile * BLOCK_M
    rows, d = start + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < queries) & (d[None, :] < D)
    q_base = q + batch * q_batch + head * q_head
    q_tile = tl.load(q_base + rows[:, None] * q_row + d[None, :], mask=inside, other=0.0)

    first = 0
    full_last = keys // BLOCK_N * BLOCK_N
    last = keys
    if CAUSAL:
        last = tl.minimum(keys, start + BLOCK_M)
        full_last = tl.minimum(full_last, start // BLOCK_N * BLOCK_N)
    full_first = first
    if WINDOW > 0:
        first = tl.maximum(0, start - WINDOW + 1) // BLOCK_N * BLOCK_N
        full_first = tl.maximum(0, start + BLOCK_M - WINDOW)
        full_first = (full_first + BLOCK_N - 1) // BLOCK_N * BLOCK_N
        full_last = tl.maximum(full_last, first)
        full_first = tl.minimum(full_first, full_last)

    sums = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    denominator = tl.zeros([BLOCK_M], dtype=tl.float32)
    largest = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    if WINDOW > 0:
        sums, denominator, largest = attend(
            sums, denominator, largest, q_tile, k_base, v_base, k_row, v_row, rows,
            first, full_first, keys, scale,
            D, BLOCK_D, BLOCK_N, True, CAUSAL, WINDOW, SOFTCAP, PRECISION,
        )  # fmt: skip
    sums, denominator, largest = attend(
        sums, denominator, largest, q_tile, k_base, v_base, k_row, v_row, rows,
        full_first, full_last, keys, scale,
        D, BLOCK_D, BLOCK_N, False, CAUSAL, WINDOW, SOFTCAP, PRECISION,
    )  # fmt: skip
    sums, denominator, largest = attend(
        sums, denominator, largest, q_tile, k_base, v_base, k_row, v_row, rows,
        full_last, last, keys, scale,
        D, BLOCK_D, BLOCK_N, True, CAUSAL, WINDOW, SOFTCAP, PRECISION,
    )  # fmt: skip

    o_base = out + batch * o_batch + head * o_head
    result = (sums / denominator[:, None]).to(out.dtype.element_ty)
    tl.store(o_base + rows[:, None] * o_row + d[None, :], result, mask=inside)
    lse_base = lse + tl.program_id(1).to(tl.int64) * queries
    tl.store(lse_base + rows, (largest + tl.log2(denominator)) / LOG2_E, mask=rows < queries)
