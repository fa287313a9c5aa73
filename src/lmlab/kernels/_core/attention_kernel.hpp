// FlashAttention-2 (Dao 2023) for causal attention in float32, with the vectors of simd.hpp.
//
// Queries and keys are taken in blocks of 64, whose scores the level 1 cache holds. Keys and values
// are converted to float32 once for all queries, transposed where a product needs it; widths are
// padded with zeros to whole vectors.

template <class T>
void forward(const Forward<T>& f, Index unit, float* scratch) {
    const Shape& s = f.shape;
    const Sizes sizes(s);
    const Index b = unit / s.key_heads, kv = unit % s.key_heads, width = sizes.width;
    float* k = take(&scratch, sizes.whole());
    float* v = take(&scratch, sizes.whole());
    float* q = take(&scratch, sizes.block());
    float* out = take(&scratch, sizes.block());
    float* scores = take(&scratch, BLOCK * BLOCK);
    const Index first = s.first(b), length = s.length(b);
    if (first == length) return;
    __builtin_memset(v, 0, sizes.used(length) * sizeof(float));
    read_rows(f.k, b, kv, 0, length, s, 1, v, f.rotation);
    transpose_blocks(v, sizes, length, k);
    read_rows(f.v, b, kv, 0, length, s, 1, v);
    __builtin_memset(q, 0, sizes.rows(least(BLOCK, length)) * sizeof(float));
    for (Index h = kv * s.group; h < (kv + 1) * s.group; ++h) {
        float* normalisers = f.normalisers + (b * s.key_heads * s.group + h) * s.time;
        for (Index query = first; query < length; query += BLOCK) {
            const Index queries = least(BLOCK, length - query);
            Softmax softmax;
            read_rows(f.q, b, h, query, queries, s, scale_of(s), q, f.rotation);
            __builtin_memset(out, 0, sizes.rows(queries) * sizeof(float));
            for_keys(s, query, queries, [&](const Pair& pair, Index block) {
                const Index at = block * sizes.block();
                pair.by_queries([&](Index row, Index count, Index seen) {
                    float* own = out + row * width;
                    multiply({q + row * width, width, 1}, tiled(count), k + at, BLOCK, seen, width,
                             scores + row * BLOCK, BLOCK, false);
                    pair.hide(scores, row, count, seen);
                    softmax.add(scores, row, count, seen);
                    for (Index i = 0; i < count; ++i)
                        for (Index j = i * width; j < (i + 1) * width; j += LANES)
                            store(own + j, load(own + j) * softmax.factor[row + i]);
                    multiply({scores + row * BLOCK, BLOCK, 1}, tiled(count), v + at, width, width,
                             seen, own, width, true);
                });
            });
            for (Index i = 0; i < queries; ++i) {
                write(out + i * width, s.width, 1 / softmax.sum[i], f.out.row(b, h, query + i));
                normalisers[query + i] = softmax.largest[i] + __builtin_logf(softmax.sum[i]);
            }
        }
    }
}

// dS = P * (dO V^T - D), D_i = sum_j P_ij dP_ij = dO_i . O_i (Dao et al. 2022, appendix B.4).
template <class T>
void backward_of_row(const Backward<T>& f, Index b, Index kv, float* scratch) {
    const Shape& s = f.shape;
    const Sizes sizes(s);
    const Index first = s.first(b), length = s.length(b), width = sizes.width;
    if (first == length) return;
    float* k = take(&scratch, sizes.whole());
    float* v = take(&scratch, sizes.whole());
    float* k_rows = take(&scratch, sizes.whole());
    float* k_grad = take(&scratch, sizes.whole());
    float* v_grad = take(&scratch, sizes.whole());
    float* q = take(&scratch, sizes.block());
    float* grad = take(&scratch, sizes.block());
    float* q_grad = take(&scratch, sizes.block());
    float* p = take(&scratch, BLOCK * BLOCK);
    float* ds = take(&scratch, BLOCK * BLOCK);
    float* dots = take(&scratch, BLOCK);
    const auto clear = [](float* x, Index count) { __builtin_memset(x, 0, count * sizeof(float)); };
    clear(k_rows, sizes.used(length));
    clear(k_grad, sizes.used(length));
    read_rows(f.k, b, kv, 0, length, s, 1, k_rows, f.rotation);
    transpose_blocks(k_rows, sizes, length, k);
    clear(v_grad, sizes.used(length));
    read_rows(f.v, b, kv, 0, length, s, 1, v_grad);
    transpose_blocks(v_grad, sizes, length, v);
    clear(v_grad, sizes.used(length));
    const Index largest_block = sizes.rows(least(BLOCK, length));
    clear(q, largest_block);
    clear(grad, largest_block);
    clear(q_grad, largest_block);
    for (Index h = kv * s.group; h < (kv + 1) * s.group; ++h) {
        const float* normalisers = f.normalisers + (b * s.key_heads * s.group + h) * s.time;
        for (Index query = first; query < length; query += BLOCK) {
            const Index queries = least(BLOCK, length - query);
            read_rows(f.q, b, h, query, queries, s, scale_of(s), q, f.rotation);
            read_rows(f.grad, b, h, query, queries, s, 1, grad);
            read_rows(f.out, b, h, query, queries, s, 1, q_grad);  // for the dots alone
            for (Index i = 0; i < queries; ++i) {
                Vec dot{};
                for (Index j = i * width; j < (i + 1) * width; j += LANES)
                    dot += load(grad + j) * load(q_grad + j);
                dots[i] = sum_of(dot);
            }
            clear(q_grad, sizes.rows(queries));
            for_keys(s, query, queries, [&](const Pair& pair, Index block) {
                const Index at = block * sizes.block();
                pair.by_queries([&](Index row, Index count, Index seen) {
                    float *own_p = p + row * BLOCK, *own_ds = ds + row * BLOCK;
                    multiply({q + row * width, width, 1}, tiled(count), k + at, BLOCK, seen, width,
                             own_p, BLOCK, false);
                    multiply({grad + row * width, width, 1}, tiled(count), v + at, BLOCK, seen,
                             width, own_ds, BLOCK, false);
                    pair.hide(p, row, count, seen);
                    for (Index i = 0; i < count; ++i)
                        for (Index j = i * BLOCK; j < i * BLOCK + seen; j += LANES) {
                            const Vec x = exp_of(load(own_p + j) - normalisers[query + row + i]);
                            store(own_p + j, x);
                            store(own_ds + j, x * (load(own_ds + j) - dots[row + i]));
                        }
                    multiply({own_ds, BLOCK, 1}, tiled(count), k_rows + at, width, width, seen,
                             q_grad + row * width, width, true);
                });
                pair.by_keys([&](Index column, Index count, Index row) {
                    const Index from = row * BLOCK + column, to = at + column * width;
                    multiply({p + from, 1, BLOCK}, count, grad + row * width, width, width,
                             queries - row, v_grad + to, width, true);
                    multiply({ds + from, 1, BLOCK}, count, q + row * width, width, width,
                             queries - row, k_grad + to, width, true);
                });
            });
            const float scale = scale_of(s);
            turn_back(q_grad, b, query, queries, s, f.rotation);
            for (Index i = 0; i < queries; ++i)
                write(q_grad + i * width, s.width, scale, f.q_grad.row(b, h, query + i));
        }
    }
    turn_back(k_grad, b, 0, length, s, f.rotation);
    for (Index t = 0; t < first; ++t) {
        add(k_grad + t * width, s.width, f.k_grad.row(b, kv, t));
        add(v_grad + t * width, s.width, f.v_grad.row(b, kv, t));
    }
    for (Index t = first; t < length; ++t) {
        write(k_grad + t * width, s.width, 1, f.k_grad.row(b, kv, t));
        write(v_grad + t * width, s.width, 1, f.v_grad.row(b, kv, t));
    }
}

template <class T>
void backward(const Backward<T>& f, Index unit, float* scratch) {
    const Shape& s = f.shape;
    if (!s.sharing) return backward_of_row(f, unit / s.key_heads, unit % s.key_heads, scratch);
    for (Index b = 0; b < s.batch; ++b) backward_of_row(f, b, unit, scratch);
}
