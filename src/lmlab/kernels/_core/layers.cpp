// Bindings of the layers; lmlab/kernels/native.py describes them.
#include "bindings.hpp"

namespace lmlab {
namespace {

using Matrix = nb::ndarray<nb::device::cpu, nb::ndim<2>>;
using Whole = nb::ndarray<nb::device::cpu, nb::ndim<2>, nb::c_contig>;
using Vector = nb::ndarray<float, nb::device::cpu, nb::ndim<1>, nb::c_contig>;
using Sums = nb::ndarray<float, nb::device::cpu, nb::ndim<2>, nb::c_contig>;

// Raises unless the tensors have one shape, one dtype that kernels compute, and rows in order.
template <class First, class... Others>
void check(const First& x, const Others&... others) {
    const auto as_first = [&](const auto& y) {
        const bool in_order = y.shape(1) < 2 || y.stride(1) == 1;
        return y.shape(0) == x.shape(0) && y.shape(1) == x.shape(1) && y.dtype() == x.dtype() &&
               in_order;
    };
    if (!is_bfloat16(x) && !is_float32(x))
        throw std::invalid_argument("layers compute float32 or bfloat16");
    if (!as_first(x) || !(as_first(others) && ...))
        throw std::invalid_argument("tensors of a layer have different shapes, dtypes or orders");
}

template <class T>
Rows<T> rows(const Matrix& x) {
    return {static_cast<T*>(x.data()), x.stride(0)};
}

template <class T>
void run_gate(const Kernels& use, const Matrix& gate, const Matrix& value, const Matrix& out,
              int threads) {
    const auto width = static_cast<Index>(gate.shape(1));
    const Gate<T> f{width, rows<const T>(gate), rows<const T>(value), {}, rows<T>(out), {}, {}};
    in_threads(static_cast<Index>(gate.shape(0)), use.layer_scratch(width), threads,
               use.gate.of<T>(), f);
}

void gate(const std::string& instructions, const Matrix& gate, const Matrix& value,
          const Matrix& out, int threads) {
    check(gate, value, out);
    (is_bfloat16(gate) ? run_gate<std::uint16_t> : run_gate<float>)(kernels_of(instructions), gate,
                                                                   value, out, threads);
}

template <class T>
void run_gate_backward(const Kernels& use, const Matrix& grad, const Matrix& gate,
                       const Matrix& value, const Matrix& gate_grad, const Matrix& value_grad,
                       int threads) {
    const auto width = static_cast<Index>(gate.shape(1));
    const Gate<T> f{width, rows<const T>(gate), rows<const T>(value), rows<const T>(grad), {},
                    rows<T>(gate_grad), rows<T>(value_grad)};
    in_threads(static_cast<Index>(gate.shape(0)), use.layer_scratch(width), threads,
               use.gate_backward.of<T>(), f);
}

void gate_backward(const std::string& instructions, const Matrix& grad, const Matrix& gate,
                   const Matrix& value, const Matrix& gate_grad, const Matrix& value_grad,
                   int threads) {
    check(grad, gate, value, gate_grad, value_grad);
    (is_bfloat16(gate) ? run_gate_backward<std::uint16_t> : run_gate_backward<float>)(
        kernels_of(instructions), grad, gate, value, gate_grad, value_grad, threads);
}

// Raises unless a gain and the inverses fit the rows.
void check_norm(const Whole& x, const Vector& gain, const Vector& inverse) {
    if (gain.shape(0) != x.shape(1) || inverse.shape(0) != x.shape(0))
        throw std::invalid_argument("the gain or the inverses do not fit the rows");
}

template <class T>
void run_norm(const Kernels& use, const Whole& x, const Vector& gain, float eps, const Whole& out,
              const Vector& inverse, int threads) {
    const Index count = static_cast<Index>(x.shape(0)), width = static_cast<Index>(x.shape(1));
    const Norm<T> f{count,       width,          eps, static_cast<const T*>(x.data()), nullptr,
                    gain.data(), inverse.data(), static_cast<T*>(out.data()),          nullptr,
                    nullptr};
    in_threads(norm_units(count), use.layer_scratch(width), threads, use.norm.of<T>(), f);
}

void norm(const std::string& instructions, const Whole& x, const Vector& gain, float eps,
          const Whole& out, const Vector& inverse, int threads) {
    check(x, out);
    check_norm(x, gain, inverse);
    (is_bfloat16(x) ? run_norm<std::uint16_t> : run_norm<float>)(kernels_of(instructions), x, gain,
                                                                eps, out, inverse, threads);
}

template <class T>
void run_norm_backward(const Kernels& use, const Whole& grad, const Whole& x, const Vector& gain,
                       const Vector& inverse, const Whole& x_grad, const Sums& gain_grads,
                       int threads) {
    const Index count = static_cast<Index>(x.shape(0)), width = static_cast<Index>(x.shape(1));
    const Norm<T> f{count,
                    width,
                    0,
                    static_cast<const T*>(x.data()),
                    static_cast<const T*>(grad.data()),
                    gain.data(),
                    inverse.data(),
                    nullptr,
                    static_cast<T*>(x_grad.data()),
                    gain_grads.data()};
    in_threads(norm_units(count), use.layer_scratch(width), threads, use.norm_backward.of<T>(), f);
}

void norm_backward(const std::string& instructions, const Whole& grad, const Whole& x,
                   const Vector& gain, const Vector& inverse, const Whole& x_grad,
                   const Sums& gain_grads, int threads) {
    check(grad, x, x_grad);
    check_norm(x, gain, inverse);
    if (static_cast<Index>(gain_grads.shape(0)) != norm_units(static_cast<Index>(x.shape(0))) ||
        gain_grads.shape(1) != x.shape(1))
        throw std::invalid_argument("the sums of the gain's gradients do not fit the rows");
    (is_bfloat16(x) ? run_norm_backward<std::uint16_t> : run_norm_backward<float>)(
        kernels_of(instructions), grad, x, gain, inverse, x_grad, gain_grads, threads);
}

}  // namespace

void bind_layers(nb::module_& m) {
    m.def("gate", &gate);
    m.def("gate_backward", &gate_backward);
    m.def("norm", &norm);
    m.def("norm_backward", &norm_backward);
    m.attr("NORM_ROWS") = NORM_ROWS;
}

}  // namespace lmlab
