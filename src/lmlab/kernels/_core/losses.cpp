// Bindings of the losses; lmlab/kernels/native.py describes them.
#include "bindings.hpp"

namespace lmlab {
namespace {

using Logits = nb::ndarray<nb::device::cpu, nb::ndim<2>, nb::c_contig>;
using Targets = nb::ndarray<const Index, nb::device::cpu, nb::ndim<1>, nb::c_contig>;
using Terms = nb::ndarray<float, nb::device::cpu, nb::ndim<2>, nb::c_contig>;

template <class T>
void run_losses(const Kernels& use, const Logits& logits, const Targets& targets,
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
    in_threads(static_cast<Index>(logits.shape(0)), use.losses_scratch(vocab), threads,
               use.losses.of<T>(), f);
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
        run_losses<std::uint16_t>(use, logits, targets, z_loss, smoothing,
                                  grads, terms.data(), threads);
    else
        run_losses<float>(use, logits, targets, z_loss, smoothing, grads,
                          terms.data(), threads);
}

}  // namespace

void bind_losses(nb::module_& m) {
    m.def("losses", &losses, nb::arg("instructions"), nb::arg("logits"), nb::arg("targets"),
          nb::arg("z_loss"), nb::arg("smoothing"), nb::arg("grads").none(), nb::arg("terms"),
          nb::arg("threads"));
}

}  // namespace lmlab
