// Bindings of the layers; lmlab/kernels/native.py describes them.
#include "bindings.hpp"

namespace lmlab {
namespace {

using Tensor = nb::ndarray<nb::device::cpu>;  // (*batch, width): two dimensions, or contiguous
using Whole = nb::ndarray<nb::device::cpu, nb::c_contig>;
using Vector = nb::ndarray<float, nb::device::cpu, nb::ndim<1>, nb::c_contig>;
using Sums = nb::ndarray<float, nb::device::cpu, nb::ndim<2>, nb::c_contig>;

template <class Array>
Index width_of(const Array& x) {
    return static_cast<Index>(x.shape(x.ndim() - 1));
}

template <class Array>
Index count_of(const Array& x) {
    Index rows = 1;
    for (std::size_t i = 0; i + 1 < x.ndim(); ++i) rows *= static_cast<Index>(x.shape(i));
    return rows;
}

// From the end on, dimensions of more than one number follow one another.
template <class Array>
bool in_order(const Array& x) {
    std::int64_t expected = 1;
    for (std::size_t i = x.ndim(); i-- > 0;) {
        if (x.ndim() == 2 && i == 0) break;
        if (x.shape(i) != 1 && x.stride(i) != expected) return false;
        expected *= static_cast<std::int64_t>(x.shape(i));
    }
    return true;
}

// Raises unless the tensors have one shape, one dtype that kernels compute, and rows in order.
template <class First, class... Others>
void check(const First& x, const Others&... others) {
    if (x.ndim() == 0 || (!is_bfloat16(x) && !is_float32(x)))
        throw std::invalid_argument("layers compute rows of float32 or bfloat16");
    const auto as_first = [&](const auto& y) {
        return y.ndim() > 0 && count_of(y) == count_of(x) && width_of(y) == width_of(x) &&
               y.dtype() == x.dtype() && in_order(y);
    };
    if (!as_first(x) || !(as_first(others) && ...))
        throw std::invalid_argument("tensors of a layer have different shapes, dtypes or orders");
}

template <class T>
Rows<T> rows(const Tensor& x) {
    return {static_cast<T*>(x.data()), x.ndim() == 2 ? x.stride(0) : width_of(x)};
}

template <class T>
void run_gate(const Kernels& use, const Tensor& gate, const Tensor& value, const Tensor& out,
              int threads) {
    const Index width = width_of(gate);
    const Gate<T> f{width, rows<const T>(gate), rows<const T>(value), {}, rows<T>(out), {}, {}};
    in_threads(count_of(gate), use.layer_scratch(width), threads,
               use.gate.of<T>(), f);
}

void gate(const std::string& instructions, const Tensor& gate, const Tensor& value,
          const Tensor& out, int threads) {
    check(gate, value, out);
    (is_bfloat16(gate) ? run_gate<std::uint16_t> : run_gate<float>)(kernels_of(instructions), gate,
                                                                   value, out, threads);
}

template <class T>
void run_gate_backward(const Kernels& use, const Tensor& grad, const Tensor& gate,
                       const Tensor& value, const Tensor& gate_grad, const Tensor& value_grad,
                       int threads) {
    const Index width = width_of(gate);
    const Gate<T> f{width, rows<const T>(gate), rows<const T>(value), rows<const T>(grad), {},
                    rows<T>(gate_grad), rows<T>(value_grad)};
    in_threads(count_of(gate), use.layer_scratch(width), threads,
               use.gate_backward.of<T>(), f);
}

void gate_backward(const std::string& instructions, const Tensor& grad, const Tensor& gate,
                   const Tensor& value, const Tensor& gate_grad, const Tensor& value_grad,
                   int threads) {
    check(grad, gate, value, gate_grad, value_grad);
    (is_bfloat16(gate) ? run_gate_backward<std::uint16_t> : run_gate_backward<float>)(
        kernels_of(instructions), grad, gate, value, gate_grad, value_grad, threads);
}

// Raises unless a gain and the inverses fit the rows.
void check_norm(const Whole& x, const Vector& gain, const Vector& inverse) {
    if (static_cast<Index>(gain.shape(0)) != width_of(x) ||
        static_cast<Index>(inverse.shape(0)) != count_of(x))
        throw std::invalid_argument("the gain or the inverses do not fit the rows");
}

template <class T>
void run_norm(const Kernels& use, const Whole& x, const Vector& gain, float eps, const Whole& out,
              const Vector& inverse, int threads) {
    const Index count = count_of(x), width = width_of(x);
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
    const Index count = count_of(x), width = width_of(x);
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
    if (static_cast<Index>(gain_grads.shape(0)) != norm_units(count_of(x)) ||
        static_cast<Index>(gain_grads.shape(1)) != width_of(x))
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
