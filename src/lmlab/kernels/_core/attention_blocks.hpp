// Blocks of queries and keys, and the softmax over the blocks of keys that a block of queries sees.

constexpr Index BLOCK = 64;
constexpr Index STRIP = 16;  // queries or keys of a block on the diagonal that are taken together
constexpr Index PREFETCH = 16;  // rows
constexpr float LOWEST = -1e30f;  // stands for -inf, which less itself is not 0

// Queries are multiplied in whole tiles; what is computed of those after the last is not read.
Index tiled(Index queries) { return round_up(queries, 8); }

struct Sizes {
    Index time, width;  // padded to whole blocks and vectors

    explicit Sizes(const Shape& s)
        : time(round_up(s.time, BLOCK)), width(round_up(s.width, LANES)) {}
    Index whole() const { return time * width; }
    Index used(Index length) const { return round_up(length, STRIP) * width; }
    Index rows(Index queries) const { return tiled(queries) * width; }
    Index block() const { return BLOCK * width; }
};

Index scratch_of(const Shape& s) {
    const Sizes sizes(s);
    return 5 * sizes.whole() + 3 * sizes.block() + 2 * BLOCK * BLOCK + BLOCK;
}

// `count` rows of a head from `first` on, as (count, padded width), rotated where there is a
// rotation. Rows lie far apart: the next ones are asked for early.
template <class T>
void read_rows(View<const T> x, Index b, Index h, Index first, Index count, const Shape& s,
               float factor, float* to, const View<const float>& rotation = {}) {
    const Index width = Sizes(s).width;
    for (Index t = first; t < first + count; ++t, to += width) {
        const T* row = x.row(b, h, t);
        for (Index j = 0; j < s.width; j += 64 / static_cast<Index>(sizeof(T)))
            __builtin_prefetch(row + PREFETCH * x.time + j);
        read(row, s.width, factor, to);
        if (rotation.data) turn(to, rotation.row(b, 0, t), s.width, 1);
    }
}

// Makes gradients of rotated rows those of the rows before.
void turn_back(float* rows, Index b, Index first, Index count, const Shape& s,
               const View<const float>& rotation) {
    if (!rotation.data) return;
    const Index width = Sizes(s).width;
    for (Index t = first; t < first + count; ++t, rows += width)
        turn(rows, rotation.row(b, 0, t), s.width, -1);
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

// A block of queries and the keys of another, all from `key` on, of which the queries see some:
// `keys` is a multiple of STRIP. On the diagonal strips that no query sees are left out.
struct Pair {
    Index queries, query, keys, key;  // counts and positions
    Index window;

    bool diagonal() const { return key + keys > query + STRIP; }

    // Calls body(first query, count, keys): together the strips have all keys that queries see.
    template <class Body>
    void by_queries(Body body) const {
        if (!diagonal()) return body(0, queries, keys);
        for (Index row = 0; row < queries; row += STRIP) {
            const Index count = least(STRIP, queries - row);
            const Index seen = least(keys, round_up(query + row + count - key, STRIP));
            if (seen > 0) body(row, count, seen);
        }
    }

    // Calls body(first key, count, first query): queries from there on see one of the keys.
    template <class Body>
    void by_keys(Body body) const {
        if (!diagonal()) return body(0, keys, 0);
        for (Index column = 0; column < keys; column += STRIP)
            body(column, least(STRIP, keys - column), most(0, key + column - query) / STRIP * STRIP);
    }

    // Hides the keys of `seen` that a query does not see.
    void hide(float* scores, Index row, Index count, Index seen) const {
        if (key + seen <= query + row + 1 && key >= query + row + count - window) return;
        for (Index i = row; i < row + count; ++i) {
            const Index at = query + i;
            const Index from = most(0, at - window + 1 - key), to = at + 1 - key;
            float* scores_of_query = scores + i * BLOCK;
            for (Index j = 0; j < least(from, seen); ++j) scores_of_query[j] = 2 * LOWEST;
            for (Index j = most(0, to); j < seen; ++j) scores_of_query[j] = 2 * LOWEST;
        }
    }
};

// Calls body(pair, block of keys) for all blocks of keys that a block of queries sees.
template <class Body>
void for_keys(const Shape& s, Index query, Index queries, Body body) {
    const Index first = most(0, query - s.window + 1) / BLOCK, end = query + queries;
    for (Index block = first; block * BLOCK < end; ++block) {
        const Index keys = round_up(least(BLOCK, end - block * BLOCK), STRIP);
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
    void add(float* scores, Index row, Index queries, Index keys) {
        float now[BLOCK]{};
        const Index end = row + queries;
        for (Index i = row; i < end; ++i) {
            Vec most_of = load(scores + i * BLOCK);
            for (Index j = LANES; j < keys; j += LANES)
                most_of = larger(most_of, load(scores + i * BLOCK + j));
            now[i] = largest_of(most_of);
        }
        for (Index i = row; i < end; i += LANES) {
            const Vec before = load(largest + i), after = larger(before, load(now + i));
            store(factor + i, exp_of(before - after));
            store(largest + i, after);
        }
        for (Index i = row; i < end; ++i) {
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
