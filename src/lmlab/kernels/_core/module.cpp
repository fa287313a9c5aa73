// Python bindings of the native core of the kernels; lmlab/kernels/native.py describes them.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels.hpp"

namespace nb = nanobind;
using namespace lmlab;

namespace lmlab {
#ifdef LMLAB_X86
extern const Kernels avx512, avx2;
#endif
extern const Kernels generic;
}  // namespace lmlab

namespace {

using Tensor = nb::ndarray<nb::device::cpu, nb::ndim<4>>;
using Normalisers = nb::ndarray<float, nb::device::cpu, nb::ndim<3>, nb::c_contig>;
using Table = nb::ndarray<const Index, nb::device::cpu, nb::ndim<2>, nb::c_contig>;
using Logits = nb::ndarray<nb::device::cpu, nb::ndim<2>, nb::c_contig>;
using Targets = nb::ndarray<const Index, nb::device::cpu, nb::ndim<1>, nb::c_contig>;
using Terms = nb::ndarray<float, nb::device::cpu, nb::ndim<2>, nb::c_contig>;
using Allowed = nb::ndarray<const bool, nb::device::cpu, nb::ndim<2>>;

std::vector<const Kernels*> kernels() {
    std::vector<const Kernels*> found;
#ifdef LMLAB_X86
    for (const Kernels* each : {&avx512, &avx2})
        if (each->supported()) found.push_back(each);
#endif
    found.push_back(&generic);
    return found;
}

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Kernels* each : kernels()) names.emplace_back(each->name);
    return names;
}

const Kernels& kernels_of(const std::string& name) {
    for (const Kernels* each : kernels())
        if (each->name == name) return *each;
    throw std::invalid_argument("no such instructions: " + name);
}

template <class Array>
bool is_bfloat16(const Array& x) {
    return x.dtype().code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat);
}

template <class Array>
bool is_float32(const Array& x) {
    return x.dtype() == nb::dtype<float>();
}

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

// Calls run(unit, scratch) for `count` units, in a number of threads.
template <class Run>
void in_threads(Index count, Index floats, int threads, Run run) {
    if (count == 0) return;
    if (count < threads) threads = static_cast<int>(count);
    const auto size = static_cast<std::size_t>(floats) * sizeof(float);
    const auto align = std::align_val_t(64);
    struct Free {
        void operator()(float* p) const { ::operator delete(p, std::align_val_t(64)); }
    };
    std::vector<std::unique_ptr<float, Free>> scratch;
    for (int i = 0; i < threads; ++i)
        scratch.emplace_back(static_cast<float*>(::operator new(size, align)));
    const nb::gil_scoped_release released;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int thread = 0; thread < threads; ++thread)
        for (Index unit = thread; unit < count; unit += threads) run(unit, scratch[thread].get());
}

template <class T, class Kernel>
void run_forward(const Kernels& use, Kernel kernel, const Shape& s, const Tensor& q,
                 const Tensor& k, const Tensor& v, const Tensor& out, float* normalisers,
                 int threads) {
    const Index heads = s.key_heads * s.group;
    const Forward<T> f{s, view<const T>(q, s, heads), view<const T>(k, s, s.key_heads),
                       view<const T>(v, s, s.key_heads), view<T>(out, s, heads), normalisers};
    in_threads(units(s), use.scratch(s), threads, [&](Index u, float* x) { kernel(f, u, x); });
}

void forward(const std::string& instructions, const Tensor& q, const Tensor& k, const Tensor& v,
             Index window, const std::optional<Table>& rows, const Tensor& out,
             Normalisers normalisers, int threads) {
    const Kernels& use = kernels_of(instructions);
    const Shape s = shape_of(q, k, window, rows);
    if (is_bfloat16(q))
        run_forward<std::uint16_t>(use, use.forward_bfloat16, s, q, k, v, out, normalisers.data(),
                                   threads);
    else
        run_forward<float>(use, use.forward_float, s, q, k, v, out, normalisers.data(), threads);
}

template <class T, class Kernel>
void run_backward(const Kernels& use, Kernel kernel, const Shape& s, const Tensor& grad,
                  const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                  const float* normalisers, const Tensor& q_grad, const Tensor& k_grad,
                  const Tensor& v_grad, int threads) {
    const Index heads = s.key_heads * s.group;
    const Backward<T> f{s,
                        view<const T>(q, s, heads),
                        view<const T>(k, s, s.key_heads),
                        view<const T>(v, s, s.key_heads),
                        view<const T>(out, s, heads),
                        view<const T>(grad, s, heads),
                        normalisers,
                        view<T>(q_grad, s, heads),
                        view<T>(k_grad, s, s.key_heads),
                        view<T>(v_grad, s, s.key_heads)};
    in_threads(backward_units(s), use.scratch(s), threads,
               [&](Index u, float* x) { kernel(f, u, x); });
}

void backward(const std::string& instructions, const Tensor& grad, const Tensor& q, const Tensor& k,
              const Tensor& v, const Tensor& out, Normalisers normalisers, Index window,
              const std::optional<Table>& rows, const Tensor& q_grad, const Tensor& k_grad,
              const Tensor& v_grad, int threads) {
    const Kernels& use = kernels_of(instructions);
    const Shape s = shape_of(q, k, window, rows);
    if (is_bfloat16(q))
        run_backward<std::uint16_t>(use, use.backward_bfloat16, s, grad, q, k, v, out,
                                    normalisers.data(), q_grad, k_grad, v_grad, threads);
    else
        run_backward<float>(use, use.backward_float, s, grad, q, k, v, out, normalisers.data(),
                            q_grad, k_grad, v_grad, threads);
}

template <class T, class Kernel>
void run_single(const Kernels& use, Kernel kernel, const Shape& s, const Tensor& q, const Tensor& k,
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
    in_threads(units(s), use.scratch_single(s), threads, [&](Index u, float* x) { kernel(f, u, x); });
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
        run_single<std::uint16_t>(use, use.single_bfloat16, s, q, k, v, allowed, cap, out, threads);
    else
        run_single<float>(use, use.single_float, s, q, k, v, allowed, cap, out, threads);
}

template <class T, class Kernel>
void run_losses(const Kernels& use, Kernel kernel, const Logits& logits, const Targets& targets,
                float z_loss, float smoothing, const std::optional<Logits>& grads, float* terms,
                int threads) {
    const auto vocab = static_cast<Index>(logits.shape(1));
    const Losses<T> f{vocab,
                      static_cast<const T*>(logits.data()),
                      targets.data(),
                      z_loss,
                      smoothing,
                      grads ? static_cast<T*>(grads->data()) : nullptr,
                      terms};
    in_threads(static_cast<Index>(logits.shape(0)), use.scratch_losses(vocab), threads,
               [&](Index row, float* x) { kernel(f, row, x); });
}

void losses(const std::string& instructions, const Logits& logits, const Targets& targets,
            float z_loss, float smoothing, const std::optional<Logits>& grads, const Terms& terms,
            int threads) {
    const Kernels& use = kernels_of(instructions);
    const bool bfloat16 = is_bfloat16(logits);
    if (!bfloat16 && !is_float32(logits))
        throw std::invalid_argument("logits are float32 or bfloat16");
    const std::size_t rows = logits.shape(0), vocab = logits.shape(1);
    if (targets.shape(0) != rows || terms.shape(0) != rows || terms.shape(1) != TERMS ||
        (grads && (grads->shape(0) != rows || grads->shape(1) != vocab ||
                   grads->dtype() != logits.dtype())))
        throw std::invalid_argument("tensors of a loss have different shapes or dtypes");
    for (std::size_t row = 0; row < rows; ++row)
        if (targets.data()[row] < 0 || targets.data()[row] >= static_cast<Index>(vocab))
            throw std::out_of_range("target " + std::to_string(targets.data()[row]) +
                                    " is not one of " + std::to_string(vocab) + " logits");
    if (bfloat16)
        run_losses<std::uint16_t>(use, use.losses_bfloat16, logits, targets, z_loss, smoothing,
                                  grads, terms.data(), threads);
    else
        run_losses<float>(use, use.losses_float, logits, targets, z_loss, smoothing, grads,
                          terms.data(), threads);
}

}  // namespace

NB_MODULE(_core, m) {
    m.def("instruction_sets", &instruction_sets);
    m.def("attention", &forward, nb::arg("instructions"), nb::arg("q"), nb::arg("k"), nb::arg("v"),
          nb::arg("window"), nb::arg("rows").none(), nb::arg("out"), nb::arg("normalisers"),
          nb::arg("threads"));
    m.def("attention_backward", &backward, nb::arg("instructions"), nb::arg("grad"), nb::arg("q"),
          nb::arg("k"), nb::arg("v"), nb::arg("out"), nb::arg("normalisers"), nb::arg("window"),
          nb::arg("rows").none(), nb::arg("q_grad"), nb::arg("k_grad"), nb::arg("v_grad"),
          nb::arg("threads"));
    m.def("single", &single, nb::arg("instructions"), nb::arg("q"), nb::arg("k"), nb::arg("v"),
          nb::arg("allowed").none(), nb::arg("cap"), nb::arg("out"), nb::arg("threads"));
    m.def("losses", &losses, nb::arg("instructions"), nb::arg("logits"), nb::arg("targets"),
          nb::arg("z_loss"), nb::arg("smoothing"), nb::arg("grads").none(), nb::arg("terms"),
          nb::arg("threads"));
}
