// Rows of numbers, converted to float32 and back.

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

float* take(float** scratch, Index count) {
    float* part = *scratch;
    *scratch += count;
    return part;
}

// Scratch for rows that are worked on as float32; rows of float32 are used where they are. Inputs and
// outputs have a room each of the same scratch: outputs take the place of inputs, vector by vector.
struct Room {
    float* free;
    Index width;

    Room(float* scratch, Index row_width) : free(scratch), width(row_width) {}

    const float* floats_of(const float* row) { return row; }
    const float* floats_of(const std::uint16_t* row) {
        float* x = next();
        read(row, width, 1, x);
        return x;
    }

    // Where to put what `finish` writes into a row.
    float* floats_for(float* row) { return row; }
    float* floats_for(std::uint16_t*) { return next(); }

    float* next() { return take(&free, round_up(width, LANES)); }
};

// Writes a row times `factor`; a row of float32 is where it belongs.
void finish(float* x, Index width, float*, float factor = 1) {
    if (factor == 1) return;
    for_vectors(width, [=](Index j, Index n) { store(x + j, load(x + j, n) * factor, n); });
}

void finish(const float* x, Index width, std::uint16_t* row, float factor = 1) {
    write(x, width, factor, row);
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

// Rotates adjacent pairs by angles whose (cosine, sine) `by` holds; a sign of -1 rotates back.
void turn(float* __restrict x, const float* __restrict by, Index width, float sign) {
    for (Index j = 0; j < width; j += 2) {
        const float even = x[j], odd = x[j + 1], cos = by[j], sin = sign * by[j + 1];
        x[j] = even * cos - odd * sin;
        x[j + 1] = even * sin + odd * cos;
    }
}

constexpr Index SUMMED = 1024;  // floats that are added up before they join the sum: less rounding

// The sum of the vectors value(j, numbers) of a row.
template <class Value>
float sum_over(Index width, Value value) {
    Vec sum{};
    for (Index at = 0; at < width; at += SUMMED) {
        Vec part{};
        for_vectors(least(SUMMED, width - at), [&](Index j, Index n) { part += value(at + j, n); });
        sum += part;
    }
    return sum_of(sum);
}
