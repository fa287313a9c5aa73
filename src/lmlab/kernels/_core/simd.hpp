// Vectors of LANES floats, and products of small matrices with them. Included once for each set of
// instructions, in a namespace of its own: no inline function may be shared between them.

using Vec = float __attribute__((vector_size(LANES * 4)));
using Bits = std::int32_t __attribute__((vector_size(LANES * 4)));

constexpr Index WIDEST = LANES == 16 ? 4 : 2;  // vectors of a tile: 16 sums fit into AVX-512's
                                               // registers, 8 into the others'

Index round_up(Index n, Index multiple) { return (n + multiple - 1) / multiple * multiple; }
Index least(Index a, Index b) { return a < b ? a : b; }
Index most(Index a, Index b) { return a > b ? a : b; }

Vec load(const float* from) {
    Vec x;
    __builtin_memcpy(&x, from, sizeof x);
    return x;
}

void store(float* to, Vec x) { __builtin_memcpy(to, &x, sizeof x); }

Vec all(float x) { return Vec{} + x; }

// Calls body(column, numbers) for each vector of a row, which may end within the last one.
template <class Body>
[[gnu::always_inline]] inline void for_vectors(Index width, Body body) {
    Index j = 0;
    for (; j + LANES <= width; j += LANES) body(j, LANES);
    if (j < width) body(j, width - j);
}

// The first `count` numbers; the other lanes are `rest`.
Vec load(const float* from, Index count, float rest = 0) {
    if (count == LANES) return load(from);
    Vec x = all(rest);
    __builtin_memcpy(&x, from, count * sizeof(float));
    return x;
}

void store(float* to, Vec x, Index count) {
    if (count == LANES) return store(to, x);
    __builtin_memcpy(to, &x, count * sizeof(float));
}

Vec larger(Vec a, Vec b) { return a > b ? a : b; }

// Each lane holds what `combine` makes of all lanes.
template <class Combine>
Vec reduced(Vec x, Combine combine) {
    Bits lane;
    for (int i = 0; i < LANES; ++i) lane[i] = i;
    for (int distance = LANES / 2; distance > 0; distance /= 2)
        x = combine(x, __builtin_shuffle(x, lane ^ distance));
    return x;
}

float sum_of(Vec x) {
    return reduced(x, [](Vec a, Vec b) { return a + b; })[0];
}

float largest_of(Vec x) { return reduced(x, larger)[0]; }

// e^x for x <= 0 to two units in the last place; 0 below -87, NaN of NaN. The polynomial is Cephes' expf.
Vec exp_of(Vec x) {
    const Vec magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    const Vec clamped = x < -87.0f ? all(-87.0f) : x;
    const Vec shifted = clamped * 1.44269504088896341f + magic;
    const Vec n = shifted - magic;
    const Vec r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
    Vec p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const Bits power = ((Bits)shifted - (Bits)magic) << 23;
    const Vec result = x < -87.0f ? Vec{} : (Vec)((Bits)p + power);
    return x == x ? result : x;
}

struct Matrix {  // element (i, j) is at[i * row + j * column]
    const float* at;
    Index row, column;
};

// c = a b, or c + a b: Rows x Vecs vectors, whose sums stay in registers.
template <int Rows, int Vecs>
void tile(Matrix a, const float* b, Index b_row, float* c, Index c_row, Index depth, bool add) {
    Vec sum[Rows][Vecs];
    for (int r = 0; r < Rows; ++r)
        for (int v = 0; v < Vecs; ++v) sum[r][v] = add ? load(c + r * c_row + v * LANES) : Vec{};
    for (Index i = 0; i < depth; ++i) {
        Vec x[Vecs];
        for (int v = 0; v < Vecs; ++v) x[v] = load(b + i * b_row + v * LANES);
        for (int r = 0; r < Rows; ++r) {
            const float factor = a.at[r * a.row + i * a.column];
            for (int v = 0; v < Vecs; ++v) sum[r][v] += factor * x[v];
        }
    }
    for (int r = 0; r < Rows; ++r)
        for (int v = 0; v < Vecs; ++v) store(c + r * c_row + v * LANES, sum[r][v]);
}

template <int Vecs>
void column(Matrix a, Index rows, const float* b, Index b_row, float* c, Index c_row, Index depth,
            bool add) {
    constexpr int Rows = Vecs * LANES == 64 ? 4 : LANES == 16 ? 8 : 4;
    Index r = 0;
    for (; r + Rows <= rows; r += Rows)
        tile<Rows, Vecs>({a.at + r * a.row, a.row, a.column}, b, b_row, c + r * c_row, c_row, depth,
                         add);
    for (; r < rows; ++r)
        tile<1, Vecs>({a.at + r * a.row, a.row, a.column}, b, b_row, c + r * c_row, c_row, depth,
                      add);
}

// c = a b, or c + a b, of (rows x depth) and (depth x columns); columns are a multiple of LANES.
void multiply(Matrix a, Index rows, const float* b, Index b_row, Index columns, Index depth,
              float* c, Index c_row, bool add) {
    Index j = 0;
    for (; j + WIDEST * LANES <= columns; j += WIDEST * LANES)
        column<WIDEST>(a, rows, b + j, b_row, c + j, c_row, depth, add);
    for (; j + 2 * LANES <= columns; j += 2 * LANES)
        column<2>(a, rows, b + j, b_row, c + j, c_row, depth, add);
    for (; j < columns; j += LANES)
        column<1>(a, rows, b + j, b_row, c + j, c_row, depth, add);
}
