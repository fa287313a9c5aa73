// Attention of one query a row, as decoding needs it, with what attention_kernel.hpp has.

Index scratch_of_single(const Shape& s) {
    return (2 + BLOCK) * Sizes(s).width + round_up(s.time, LANES);
}

// Attention of one query a row to the keys that it is allowed to see: each row by itself, and the
// same whatever the number of keys is that it does not see.
template <class T>
void forward_single(const Single<T>& f, Index unit, float* scratch) {
    const Shape& s = f.shape;
    const Index b = unit / s.key_heads, kv = unit % s.key_heads, width = Sizes(s).width;
    const bool* allowed = f.allowed ? f.allowed + b * f.allowed_row : nullptr;
    Index keys = s.time;
    while (allowed && keys > 0 && !allowed[keys - 1]) --keys;
    const Index padded = round_up(keys, LANES);
    float* q = take(&scratch, width);
    float* out = take(&scratch, width);
    float* rows = take(&scratch, BLOCK * width);
    float* scores = take(&scratch, padded);
    __builtin_memset(q, 0, width * sizeof(float));
    __builtin_memset(rows, 0, least(BLOCK, keys) * width * sizeof(float));
    for (Index h = kv * s.group; h < (kv + 1) * s.group; ++h) {
        read(f.q.row(b, h, 0), s.width, scale_of(s), q);
        for (Index j = 0; j < padded; ++j) scores[j] = 2 * LOWEST;
        for (Index key = 0; key < keys; key += BLOCK) {
            const Index count = least(BLOCK, keys - key);
            read_rows(f.k, b, kv, key, count, s, 1, rows);
            for (Index j = 0; j < count; ++j) {
                if (allowed && !allowed[key + j]) continue;
                Vec dot{};
                for (Index i = 0; i < width; i += LANES)
                    dot += load(q + i) * load(rows + j * width + i);
                const float score = sum_of(dot);
                scores[key + j] = f.cap > 0 ? f.cap * __builtin_tanhf(score / f.cap) : score;
            }
        }
        Vec most_of = all(LOWEST), added{};
        for (Index j = 0; j < padded; j += LANES) most_of = larger(load(scores + j), most_of);
        const float largest = largest_of(most_of);
        for (Index j = 0; j < padded; j += LANES) {
            const Vec p = exp_of(load(scores + j) - largest);
            store(scores + j, p);
            added += p;
        }
        __builtin_memset(out, 0, width * sizeof(float));
        for (Index key = 0; key < keys; key += BLOCK) {
            const Index count = least(BLOCK, keys - key);
            read_rows(f.v, b, kv, key, count, s, 1, rows);
            multiply({scores + key, BLOCK, 1}, 1, rows, width, width, count, out, width, true);
        }
        // Without a key the result is 0.
        write(out, s.width, keys > 0 ? 1 / sum_of(added) : 0, f.out.row(b, h, 0));
    }
}
