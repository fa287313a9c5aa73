// Bindings of attention; lmlab/kernels/native.py describes them.
#include <type_traits>

#include "bindings.hpp"

namespace lmlab {
namespace {

using Tensor = nb::ndarray<nb::device::cpu, nb::ndim<4>>;
using Normalisers = nb::ndarray<float, nb::device::cpu, nb::ndim<3>, nb::c_contig>;
using Table = nb::ndarray<const Index, nb::device::cpu, nb::ndim<2>, nb::c_contig>;
using Rotation = nb::ndarray<const float, nb::device::cpu, nb::ndim<4>, nb::c_contig>;
using Allowed = nb::ndarray<const bool, nb::device::cpu, nb::ndim<2>>;

Shape shape_of(const Tensor& q, const Tensor& k, Index window) {
    if (k.shape(1) == 0) throw std::invalid_argument("attention without key heads");
    return {static_cast<Index>(q.shape(0)), static_cast<Index>(k.shape(1)),
            static_cast<Index>(q.shape(1) / k.shape(1)), static_cast<Index>(q.shape(2)),
            static_cast<Index>(q.shape(3)), window, nullptr, 0};
}

// The same for rows that share tokens, see `Shape::sharing`.
Shape shape_of(const Tensor& q, const Tensor& k, Index window, const std::optional<Table>& rows) {
    Shape s = shape_of(q, k, window);
    if (!rows) return s;
    s.tokens = s.time;
    s.batch = static_cast<Index>(rows->shape(0));
    s.time = static_cast<Index>(rows->shape(1)) - 2;
    s.sharing = rows->data();
    for (Index b = 0; b < s.batch; ++b) {
        const Index* row = s.shared(b);
        bool valid = 0 <= row[0] && row[0] <= row[1] && row[1] <= s.time;
        for (Index t = 0; valid && t < row[1]; ++t) valid = 0 <= row[2 + t] && row[2 + t] < s.tokens;
        if (!valid) throw std::invalid_argument("a row has places or tokens that are not there");
    }
    return s;
}

template <class T>
View<T> view(const Tensor& x, const Shape& s, Index heads) {
    if (!(std::is_same_v<std::remove_const_t<T>, float> ? is_float32(x) : is_bfloat16(x)))
        throw std::invalid_argument("tensors of attention are float32, or all bfloat16");
    const Index sizes[] = {s.sharing ? 1 : s.batch, heads, s.sharing ? s.tokens : s.time, s.width};
    for (int i = 0; i < 4; ++i)
        if (static_cast<Index>(x.shape(i)) != sizes[i])
            throw std::invalid_argument("tensors of attention have different shapes");
    if (x.stride(3) != 1 && x.shape(3) > 1)
        throw std::invalid_argument("the last dimension is not contiguous");
    return {static_cast<T*>(x.data()), x.stride(0), x.stride(1), x.stride(2),
            s.sharing ? s.sharing + 2 : nullptr, 2 + s.time};
}

// Rotations (batch or 1, time, width / 2, 2).
View<const float> rotation_of(const std::optional<Rotation>& rotation, const Shape& s) {
    if (!rotation) return {};
    const Index batch = s.sharing ? 1 : s.batch, time = s.sharing ? s.tokens : s.time;
    const auto rows = static_cast<Index>(rotation->shape(0));
    if ((rows != 1 && rows != batch) || static_cast<Index>(rotation->shape(1)) != time ||
        2 * static_cast<Index>(rotation->shape(2)) != s.width || rotation->shape(3) != 2)
        throw std::invalid_argument("the rotation is not (batch or 1, time, width / 2, 2)");
    return {rotation->data(), rows > 1 ? time * s.width : 0, 0, s.width,
            s.sharing ? s.sharing + 2 : nullptr, 2 + s.time};
}

template <class T>
void run_forward(const Kernels& use, const Shape& s, const Tensor& q,
                 const Tensor& k, const Tensor& v, const std::optional<Rotation>& rotation,
                 const Tensor& out, float* normalisers, int threads) {
    const Index heads = s.key_heads * s.group;
    const Forward<T> f{s,
                       view<const T>(q, s, heads),
                       view<const T>(k, s, s.key_heads),
                       view<const T>(v, s, s.key_heads),
                       rotation_of(rotation, s),
                       view<T>(out, s, heads),
                       normalisers};
    in_threads(units(s), use.attention_scratch(s), threads, use.forward.of<T>(), f);
}

void forward(const std::string& instructions, const Tensor& q, const Tensor& k, const Tensor& v,
             Index window, const std::optional<Table>& rows,
             const std::optional<Rotation>& rotation, const Tensor& out, Normalisers normalisers,
             int threads) {
    const Kernels& use = kernels_of(instructions);
    const Shape s = shape_of(q, k, window, rows);
    if (is_bfloat16(q))
        run_forward<std::uint16_t>(use, s, q, k, v, rotation, out,
                                   normalisers.data(), threads);
    else
        run_forward<float>(use, s, q, k, v, rotation, out, normalisers.data(),
                           threads);
}

template <class T>
void run_backward(const Kernels& use, const Shape& s, const Tensor& grad,
                  const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                  const float* normalisers, const std::optional<Rotation>& rotation,
                  const Tensor& q_grad, const Tensor& k_grad, const Tensor& v_grad, int threads) {
    const Index heads = s.key_heads * s.group;
    const Backward<T> f{s,
                        view<const T>(q, s, heads),
                        view<const T>(k, s, s.key_heads),
                        view<const T>(v, s, s.key_heads),
                        view<const T>(out, s, heads),
                        view<const T>(grad, s, heads),
                        rotation_of(rotation, s),
                        normalisers,
                        view<T>(q_grad, s, heads),
                        view<T>(k_grad, s, s.key_heads),
                        view<T>(v_grad, s, s.key_heads)};
    in_threads(backward_units(s), use.attention_scratch(s), threads, use.backward.of<T>(), f);
}

void backward(const std::string& instructions, const Tensor& grad, const Tensor& q, const Tensor& k,
              const Tensor& v, const Tensor& out, Normalisers normalisers, Index window,
              const std::optional<Table>& rows, const std::optional<Rotation>& rotation,
              const Tensor& q_grad, const Tensor& k_grad, const Tensor& v_grad, int threads) {
    const Kernels& use = kernels_of(instructions);
    const Shape s = shape_of(q, k, window, rows);
    if (is_bfloat16(q))
        run_backward<std::uint16_t>(use, s, grad, q, k, v, out,
                                    normalisers.data(), rotation, q_grad, k_grad, v_grad, threads);
    else
        run_backward<float>(use, s, grad, q, k, v, out, normalisers.data(),
                            rotation, q_grad, k_grad, v_grad, threads);
}

template <class T>
void run_single(const Kernels& use, const Shape& s, const Tensor& q, const Tensor& k,
                const Tensor& v, const std::optional<Allowed>& allowed, float cap,
                const Tensor& out, int threads) {
    Shape one = s;
    one.time = 1;
    const Index heads = s.key_heads * s.group;
    const Single<T> f{s,
                      view<const T>(q, one, heads),
                      view<const T>(k, s, s.key_heads),
                      view<const T>(v, s, s.key_heads),
                      view<T>(out, one, heads),
                      allowed ? allowed->data() : nullptr,
                      allowed && allowed->shape(0) > 1 ? allowed->stride(0) : 0,
                      cap};
    in_threads(units(s), use.single_scratch(s), threads, use.single.of<T>(), f);
}

void single(const std::string& instructions, const Tensor& q, const Tensor& k, const Tensor& v,
            const std::optional<Allowed>& allowed, float cap, const Tensor& out, int threads) {
    const Kernels& use = kernels_of(instructions);
    Shape s = shape_of(q, k, 0);
    s.time = static_cast<Index>(k.shape(2));
    if (allowed) {
        const auto rows = static_cast<Index>(allowed->shape(0));
        if ((rows != 1 && rows != s.batch) || static_cast<Index>(allowed->shape(1)) != s.time ||
            allowed->stride(1) != 1)
            throw std::invalid_argument("the mask is not (batch or 1, keys)");
    }
    if (is_bfloat16(q))
        run_single<std::uint16_t>(use, s, q, k, v, allowed, cap, out, threads);
    else
        run_single<float>(use, s, q, k, v, allowed, cap, out, threads);
}

}  // namespace

void bind_attention(nb::module_& m) {
    m.def("attention", &forward, nb::arg("instructions"), nb::arg("q"), nb::arg("k"), nb::arg("v"),
          nb::arg("window"), nb::arg("rows").none(), nb::arg("rotation").none(), nb::arg("out"),
          nb::arg("normalisers"), nb::arg("threads"));
    m.def("attention_backward", &backward, nb::arg("instructions"), nb::arg("grad"), nb::arg("q"),
          nb::arg("k"), nb::arg("v"), nb::arg("out"), nb::arg("normalisers"), nb::arg("window"),
          nb::arg("rows").none(), nb::arg("rotation").none(), nb::arg("q_grad"), nb::arg("k_grad"),
          nb::arg("v_grad"), nb::arg("threads"));
    m.def("single", &single, nb::arg("instructions"), nb::arg("q"), nb::arg("k"), nb::arg("v"),
          nb::arg("allowed").none(), nb::arg("cap"), nb::arg("out"), nb::arg("threads"));
}

}  // namespace lmlab
