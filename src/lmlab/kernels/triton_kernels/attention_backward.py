"""The backward pass of FlashAttention-2 in Triton (Dao 2023, algorithm 2), without atomic adds.

One pass over tiles of keys writes the gradients of keys and values, another over tiles of queries
those of queries. Both recompute the probabilities from L.
"""

import triton
import triton.language as tl

from lmlab.kernels.triton_kernels.attention_forward import LOG2_E, capped_scores, hide


@triton.jit
def delta_kernel(
    out, grad, delta,
    o_batch, o_head, o_row, g_batch, g_head, g_row, heads, queries,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Write D = rowsum(O dO) of one tile of queries; grid: (tiles of queries, batch x heads)."""
    batch, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    rows, d = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < queries) & (d[None, :] < D)
    o_places = out + batch * o_batch + head * o_head + rows[:, None] * o_row + d[None, :]
    g_places = grad + batch * g_batch + head * g_head + rows[:, None] * g_row + d[None, :]
    o = tl.load(o_places, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(g_places, mask=inside, other=0.0).to(tl.float32)
    base = delta + tl.program_id(1).to(tl.int64) * queries
    tl.store(base + rows, tl.sum(o * g, 1), mask=rows < queries)


@triton.jit
def add_queries(
    k_sums, v_sums, k, v, q_base, g_base, q_row, g_row, lse_base, delta_base, columns,
    first, last, queries, keys, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, MASKED: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add what the queries from `first` to `last` contribute to a tile's dK and dV."""
    d = tl.arange(0, BLOCK_D)
    for start in range(first, last, BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        q_places = q_base + rows[:, None] * q_row + d[None, :]
        g_places = g_base + rows[:, None] * g_row + d[None, :]
        if MASKED or D < BLOCK_D:
            real = rows < queries
            inside = real[:, None] & (d[None, :] < D)
            q = tl.load(q_places, mask=inside, other=0.0)
            g = tl.load(g_places, mask=inside, other=0.0)
            # A row beyond the end has the probability exp(-inf) = 0.
            lse = tl.load(lse_base + rows, mask=real, other=float("inf"))
            delta = tl.load(delta_base + rows, mask=real, other=0.0)
        else:
            q, g = tl.load(q_places), tl.load(g_places)
            lse, delta = tl.load(lse_base + rows), tl.load(delta_base + rows)
        scores = capped_scores(k, tl.trans(q), scale, SOFTCAP, PRECISION)
        shown = scores
        if MASKED:
            shown = hide(scores, rows[None, :], columns[:, None], keys, CAUSAL, WINDOW)
        p = tl.exp2((shown - lse[None, :]) * LOG2_E)
        v_sums = tl.dot(p.to(g.dtype), g, v_sums, input_precision=PRECISION)
        p_grad = tl.dot(v, tl.trans(g), input_precision=PRECISION)
        score_grad = p * (p_grad - delta[None, :])
        if SOFTCAP > 0:
            score_grad *= 1 - scores * scores * (1 / (SOFTCAP * SOFTCAP))
        k_sums = tl.dot(score_grad.to(q.dtype), q, k_sums, input_precision=PRECISION)
    return k_sums, v_sums


@triton.jit
def key_value_grad_kernel(
    q, k, v, grad, lse, delta, k_grad, v_grad,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, g_batch, g_head, g_row,
    dk_batch, dk_head, dk_row, dv_batch, dv_head, dv_row,
    kv_heads, group, queries, keys, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write dK and dV of one tile of keys, summed over the query heads that share it.

    Grid: (tiles of keys, batch x heads of keys).
    """
    batch, kv_head = (tl.program_id(1) // kv_heads).to(tl.int64), tl.program_id(1) % kv_heads
    start = tl.program_id(0) * BLOCK_N
    columns, d = start + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    inside = (columns[:, None] < keys) & (d[None, :] < D)
    k_places = k + batch * k_batch + kv_head * k_head + columns[:, None] * k_row + d[None, :]
    v_places = v + batch * v_batch + kv_head * v_head + columns[:, None] * v_row + d[None, :]
    k_tile = tl.load(k_places, mask=inside, other=0.0)
    v_tile = tl.load(v_places, mask=inside, other=0.0)

    # Rows from `full_first` to `full_last` see all keys of the tile.
    first, full_first, last = 0, 0, queries
    full_last = queries // BLOCK_M * BLOCK_M
    if WINDOW > 0:
        last = tl.minimum(queries, start + BLOCK_N - 1 + WINDOW)
        full_last = tl.minimum(full_last, (start + WINDOW) // BLOCK_M * BLOCK_M)
    if CAUSAL:
        first = start // BLOCK_M * BLOCK_M
        full_first = (start + BLOCK_N - 1 + BLOCK_M - 1) // BLOCK_M * BLOCK_M
        full_last = tl.maximum(full_last, first)
        full_first = tl.minimum(full_first, full_last)

    k_sums = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    v_sums = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    heads = kv_heads * group
    for member in range(group):
        head = (kv_head * group + member).to(tl.int64)
        q_base = q + batch * q_batch + head * q_head
        g_base = grad + batch * g_batch + head * g_head
        lse_base = lse + (batch * heads + head) * queries
        delta_base = delta + (batch * heads + head) * queries
        if CAUSAL:
            k_sums, v_sums = add_queries(
                k_sums, v_sums, k_tile, v_tile, q_base, g_base, q_row, g_row, lse_base, delta_base,
                columns, first, full_first, queries, keys, scale,
                D, BLOCK_D, BLOCK_M, True, CAUSAL, WINDOW, SOFTCAP, PRECISION,
            )  # fmt: skip
        k_sums, v_sums = add_queries(
            k_sums, v_sums, k_tile, v_tile, q_base, g_base, q_row, g_row, lse_base, delta_base,
            columns, full_first, full_last, queries, keys, scale,
            D, BLOCK_D, BLOCK_M, False, CAUSAL, WINDOW, SOFTCAP, PRECISION,
        )  # fmt: skip
        k_sums, v_sums = add_queries(
            k_sums, v_sums, k_tile, v_tile, q_base, g_base, q_row, g_row, lse_base, delta_base,
            columns, full_last, last, queries, keys, scale,
            D, BLOCK_D, BLOCK_M, True, CAUSAL, WINDOW, SOFTCAP, PRECISION,
        )  # fmt: skip

    dk_base = k_grad + batch * dk_batch + kv_head * dk_head
    dv_base = v_grad + batch * dv_batch + kv_head * dv_head
    dk, dv = (k_sums * scale).to(k_grad.dtype.element_ty), v_sums.to(v_grad.dtype.element_ty)
    tl.store(dk_base + columns[:, None] * dk_row + d[None, :], dk, mask=inside)
    tl.store(dv_base + columns[:, None] * dv_row + d[None, :], dv, mask=inside)


@triton.jit
def add_keys(
    sums, q, g, lse, delta, k_base, v_base, k_row, v_row, rows, first, last, keys, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add what the keys from `first` to `last` contribute to a tile's dQ."""
    d = tl.arange(0, BLOCK_D)
    for start in range(first, last, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        k_places = k_base + columns[:, None] * k_row + d[None, :]
        v_places = v_base + columns[:, None] * v_row + d[None, :]
        if MASKED or D < BLOCK_D:
            inside = (columns[:, None] < keys) & (d[None, :] < D)
            k = tl.load(k_places, mask=inside, other=0.0)
            v = tl.load(v_places, mask=inside, other=0.0)
        else:
            k, v = tl.load(k_places), tl.load(v_places)
        scores = capped_scores(q, tl.trans(k), scale, SOFTCAP, PRECISION)
        shown = scores
        if MASKED:
            shown = hide(scores, rows[:, None], columns[None, :], keys, CAUSAL, WINDOW)
        p = tl.exp2((shown - lse[:, None]) * LOG2_E)
        p_grad = tl.dot(g, tl.trans(v), input_precision=PRECISION)
        score_grad = p * (p_grad - delta[:, None])
        if SOFTCAP > 0:
            score_grad *= 1 - scores * scores * (1 / (SOFTCAP * SOFTCAP))
        sums = tl.dot(score_grad.to(k.dtype), k, sums, input_precision=PRECISION)
    return sums


@triton.jit
def query_grad_kernel(
    q, k, v, grad, lse, delta, q_grad,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, g_batch, g_head, g_row,
    dq_batch, dq_head, dq_row,
    heads, group, queries, keys, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write dQ of one tile of queries of one head; grid: (tiles of queries, batch x heads)."""
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    batch, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    kv_head = (head // group).to(tl.int64)
    k_base = k + batch * k_batch + kv_head * k_head
    v_base = v + batch * v_batch + kv_head * v_head
    start = tile * BLOCK_M
    rows, d = start + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    real = rows < queries
    inside = real[:, None] & (d[None, :] < D)
    q_places = q + batch * q_batch + head * q_head + rows[:, None] * q_row + d[None, :]
    g_places = grad + batch * g_batch + head * g_head + rows[:, None] * g_row + d[None, :]
    q_tile = tl.load(q_places, mask=inside, other=0.0)
    g_tile = tl.load(g_places, mask=inside, other=0.0)
    places = tl.program_id(1).to(tl.int64) * queries + rows
    lse_tile = tl.load(lse + places, mask=real, other=float("inf"))
    delta_tile = tl.load(delta + places, mask=real, other=0.0)

    first, full_first, full_last, last = 0, 0, keys // BLOCK_N * BLOCK_N, keys
    if CAUSAL:
        last = tl.minimum(keys, start + BLOCK_M)
        full_last = tl.minimum(full_last, start // BLOCK_N * BLOCK_N)
    if WINDOW > 0:
        first = tl.maximum(0, start - WINDOW + 1) // BLOCK_N * BLOCK_N
        full_first = tl.maximum(0, start + BLOCK_M - WINDOW)
        full_first = (full_first + BLOCK_N - 1) // BLOCK_N * BLOCK_N
        full_last = tl.maximum(full_last, first)
        full_first = tl.minimum(full_first, full_last)

    sums = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    if WINDOW > 0:
        sums = add_keys(
            sums, q_tile, g_tile, lse_tile, delta_tile, k_base, v_base, k_row, v_row, rows,
            first, full_first, keys, scale,
            D, BLOCK_D, BLOCK_N, True, CAUSAL, WINDOW, SOFTCAP, PRECISION,
        )  # fmt: skip
    sums = add_keys(
        sums, q_tile, g_tile, lse_tile, delta_tile, k_base, v_base, k_row, v_row, rows,
        full_first, full_last, keys, scale,
        D, BLOCK_D, BLOCK_N, False, CAUSAL, WINDOW, SOFTCAP, PRECISION,
    )  # fmt: skip
    sums = add_keys(
        sums, q_tile, g_tile, lse_tile, delta_tile, k_base, v_base, k_row, v_row, rows,
        full_last, last, keys, scale,
        D, BLOCK_D, BLOCK_N, True, CAUSAL, WINDOW, SOFTCAP, PRECISION,
    )  # fmt: skip
    dq = (sums * scale).to(q_grad.dtype.element_ty)
    dq_places = q_grad + batch * dq_batch + head * dq_head + rows[:, None] * dq_row + d[None, :]
    tl.store(dq_places, dq, mask=inside)
