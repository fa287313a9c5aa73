// What the bindings of all kernels share.
#pragma once

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
#include <vector>

#include "kernels.hpp"

namespace lmlab {

namespace nb = nanobind;

// The kernels with the instructions of this name; std::invalid_argument if the processor has none.
const Kernels& kernels_of(const std::string& name);

void bind_attention(nb::module_& m);
void bind_losses(nb::module_& m);
void bind_layers(nb::module_& m);

template <class Array>
bool is_bfloat16(const Array& x) {
    return x.dtype().code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat);
}

template <class Array>
bool is_float32(const Array& x) {
    return x.dtype() == nb::dtype<float>();
}

// Calls run(args, unit, scratch) for `count` units, in a number of threads.
template <class Run, class Args>
void in_threads(Index count, Index floats, int threads, Run run, const Args& args) {
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
        for (Index unit = thread; unit < count; unit += threads) run(args, unit, scratch[thread].get());
}

}  // namespace lmlab
