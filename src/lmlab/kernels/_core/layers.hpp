// Layers that work on each row by itself: what the bindings and the code of each instruction set share.
#pragma once

#include <cstdint>

namespace lmlab {

using Index = std::int64_t;

template <class T>
struct Rows {  // of a matrix whose last dimension is contiguous
    T* data;
    Index stride;

    [[gnu::always_inline]] T* row(Index i) const { return data + i * stride; }
};

// silu(gate) * value; in the backward pass, `grad` is that of `out`.
template <class T>
struct Gate {
    Index width;
    Rows<const T> gate, value, grad;
    Rows<T> out, gate_grad, value_grad;
};

constexpr Index NORM_ROWS = 32;  // rows whose gradients of the gain are added up together

// x / sqrt(mean(x^2) + eps) * gain; in the backward pass, `grad` is that of `out`.
template <class T>
struct Norm {
    Index rows, width;
    float eps;
    const T *x, *grad;  // (rows, width)
    const float* gain;
    float* inverse;  // (rows): 1 / sqrt(mean(x^2) + eps)
    T *out, *x_grad;
    float* gain_grads;  // (rows / NORM_ROWS rounded up, width)
};

inline Index norm_units(Index rows) { return (rows + NORM_ROWS - 1) / NORM_ROWS; }

}  // namespace lmlab
