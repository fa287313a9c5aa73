// FlashAttention-2 (Dao 2023) for causal attention in float32, with the vectors of simd.hpp.
//
// Queries and keys are taken in blocks of 64, whose scores the level 1 cache holds. Keys and values
// are converted to float32 once for all queries, transposed where a product needs it; widths are
// padded with zeros to whole vectors.

constexpr Index BLOCK = 64;
constexpr Index PREFETCH = 16;  // rows
constexpr float LOWEST = -1e30f;  // stands for -inf, which less itself is not 0

float* take(float** scratch, Index count) {
    float* part = *scratch;
    *scratch += count;
    return part;
}

void read(const float* __restrict from, Index width, float factor, float* __restrict to) {
    for (Index i = 0; i < width; ++i) to[i] = from[i] * factor;
}

void read(const std::uint16_t* from, Index width, float factor, float* to) {
    for (Index i = 0; i < width; ++i) {
        const std::uint32_t bits = static_cast<std::uint32_t>(from[i]) << 16;
        float x;
        __builtin_memcpy(&x, &bits, sizeof x);
        to[i] = x * factor;
    }
}

void write(const float* __restrict from, Index width, float factor, float* __restrict to) {
    for (Index i = 0; i < width; ++i) to[i] = from[i] * factor;
}

void write(const float* from, Index width, float factor, std::uint16_t* to) {
    for (Index i = 0; i < width; ++i) {
        const float x = from[i] * factor;
        std::uint32_t bits;
        __builtin_memcpy(&bits, &x, sizeof x);
        const std::uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        to[i] = static_cast<std::uint16_t>(x == x ? rounded : 0x7fc0);  // to even; NaN stays NaN
    }
}

// What a row adds to the gradients of keys that it shares with earlier rows.
void add(const float* __restrict from, Index width, float* __restrict to) {
    for (Index i = 0; i < width; ++i) to[i] += from[i];
}

void add(const float* from, Index width, std::uint16_t* to) {
    for (Index i = 0; i < width; ++i) {
        float sum;
        read(to + i, 1, 1, &sum);
        sum += from[i];
        write(&sum, 1, 1, to + i);
    }
}

// Queries are multiplied in whole tiles; what is computed of those after the last is not read.
Index tiled(Index queries) { return round_up(queries, 8); }

struct Sizes {
    Index time, width;  // padded to whole blocks and vectors

    explicit Sizes(const Shape& s)
        : time(round_up(s.time, BLOCK)), width(round_up(s.width, LANES)) {}
    Index whole() const { return time * width; }
    Index used(Index length) const { return round_up(length, LANES) * width; }
    Index rows(Index queries) const { return tiled(queries) * width; }
    Index block() const { return BLOCK * width; }
};

Index scratch_of(const Shape& s) {
    const Sizes sizes(s);
    return 5 * sizes.whole() + 3 * sizes.block() + 2 * BLOCK * BLOCK + BLOCK;
}

// `count` rows of a head from `first` on, as (count, padded width). Rows lie far apart: the next
// ones are asked for early.
template <class T>
void read_rows(View<const T> x, Index b, Index h, Index first, Index count, const Shape& s,
               float factor, float* to) {
    const Index width = Sizes(s).width;
    for (Index t = first; t < first + count; ++t, to += width) {
        const T* row = x.row(b, h, t);
        for (Index j = 0; j < s.width; j += 64 / static_cast<Index>(sizeof(T)))
            __builtin_prefetch(row + PREFETCH * x.time + j);
        read(row, s.width, factor, to);
    }
}

// Rows (length, width), transposed block by block to (blocks, width, BLOCK).
void transpose_blocks(const float* rows, const Sizes& sizes, Index length, float* to) {
    for (Index at = 0; at < sizes.used(length); at += sizes.block()) {
        const Index count = least(BLOCK, sizes.used(length) / sizes.width - at / sizes.width);
        for (Index j = 0; j < sizes.width; ++j)
            for (Index t = 0; t < count; ++t)
                to[at + j * BLOCK + t] = rows[at + t * sizes.width + j];
    }
}

// The keys of one block that the queries of another see: all from `first` to `end`, a multiple of
// LANES from the block's start. Where it is not so for each query, `hide` says which.
struct Pair {
    Index queries, query, keys, key;  // counts and positions
    Index window;

    void hide(float* scores) const {
        for (Index i = 0; i < queries; ++i) {
            const Index at = query + i;
            const Index from = most(0, at - window + 1 - key), to = at + 1 - key;
            float* row = scores + i * BLOCK;
            for (Index j = 0; j < least(from, keys); ++j) row[j] = 2 * LOWEST;
            for (Index j = most(0, to); j < keys; ++j) row[j] = 2 * LOWEST;
        }
    }

    bool partly_hidden() const {
        return key + keys > query + 1 || key < query + queries - window;
    }
};

// Calls body(pair, block of keys) for all blocks of keys that a block of queries sees.
template <class Body>
void for_keys(const Shape& s, Index query, Index queries, Body body) {
    const Index first = most(0, query - s.window + 1) / BLOCK, end = query + queries;
    for (Index block = first; block * BLOCK < end; ++block) {
        const Index keys = round_up(least(BLOCK, end - block * BLOCK), LANES);
        body(Pair{queries, query, keys, block * BLOCK, s.window}, block);
    }
}

float scale_of(const Shape& s) { return 1 / __builtin_sqrtf(static_cast<float>(s.width)); }

// What a block of queries knows after the keys so far.
struct Softmax {
    float largest[BLOCK], sum[BLOCK], factor[BLOCK];

    Softmax() : sum{} {
        for (float& x : largest) x = LOWEST;
    }

    // Turns scores into probabilities that lack the sums; `factor` is for what was added up before.
    void add(float* scores, Index queries, Index keys) {
        float now[BLOCK]{};
        for (Index i = 0; i < queries; ++i) {
            Vec most_of = load(scores + i * BLOCK);
            for (Index j = LANES; j < keys; j += LANES)
                most_of = larger(most_of, load(scores + i * BLOCK + j));
            now[i] = largest_of(most_of);
        }
        for (Index i = 0; i < queries; i += LANES) {
            const Vec before = load(largest + i), after = larger(before, load(now + i));
            store(factor + i, exp_of(before - after));
            store(largest + i, after);
        }
        for (Index i = 0; i < queries; ++i) {
            Vec added{};
            for (Index j = i * BLOCK; j < i * BLOCK + keys; j += LANES) {
                const Vec p = exp_of(load(scores + j) - largest[i]);
                store(scores + j, p);
                added += p;
            }
            sum[i] = sum[i] * factor[i] + sum_of(added);
        }
    }
};

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
    read_rows(f.k, b, kv, 0, length, s, 1, v);
    transpose_blocks(v, sizes, length, k);
    read_rows(f.v, b, kv, 0, length, s, 1, v);
    __builtin_memset(q, 0, sizes.rows(least(BLOCK, length)) * sizeof(float));
    for (Index h = kv * s.group; h < (kv + 1) * s.group; ++h) {
        float* normalisers = f.normalisers + (b * s.key_heads * s.group + h) * s.time;
        for (Index query = first; query < length; query += BLOCK) {
            const Index queries = least(BLOCK, length - query);
            Softmax softmax;
            read_rows(f.q, b, h, query, queries, s, scale_of(s), q);
            __builtin_memset(out, 0, sizes.rows(queries) * sizeof(float));
            for_keys(s, query, queries, [&](const Pair& pair, Index block) {
                multiply({q, width, 1}, tiled(queries), k + block * sizes.block(), BLOCK, pair.keys,
                         width, scores, BLOCK, false);
                if (pair.partly_hidden()) pair.hide(scores);
                softmax.add(scores, queries, pair.keys);
                for (Index i = 0; i < queries; ++i)
                    for (Index j = i * width; j < (i + 1) * width; j += LANES)
                        store(out + j, load(out + j) * softmax.factor[i]);
                multiply({scores, BLOCK, 1}, tiled(queries), v + block * sizes.block(), width,
                         width, pair.keys, out, width, true);
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
    read_rows(f.k, b, kv, 0, length, s, 1, k_rows);
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
            read_rows(f.q, b, h, query, queries, s, scale_of(s), q);
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
                multiply({q, width, 1}, tiled(queries), k + at, BLOCK, pair.keys, width, p, BLOCK,
                         false);
                multiply({grad, width, 1}, tiled(queries), v + at, BLOCK, pair.keys, width, ds,
                         BLOCK, false);
                if (pair.partly_hidden()) pair.hide(p);
                for (Index i = 0; i < queries; ++i)
                    for (Index j = i * BLOCK; j < i * BLOCK + pair.keys; j += LANES) {
                        const Vec x = exp_of(load(p + j) - normalisers[query + i]);
                        store(p + j, x);
                        store(ds + j, x * (load(ds + j) - dots[i]));
                    }
                multiply({p, 1, BLOCK}, pair.keys, grad, width, width, queries, v_grad + at, width,
                         true);
                multiply({ds, 1, BLOCK}, pair.keys, q, width, width, queries, k_grad + at, width,
                         true);
                multiply({ds, BLOCK, 1}, tiled(queries), k_rows + at, width, width, pair.keys,
                         q_grad, width, true);
            });
            for (Index i = 0; i < queries; ++i)
                write(q_grad + i * width, s.width, scale_of(s), f.q_grad.row(b, h, query + i));
        }
    }
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
