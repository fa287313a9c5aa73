// The kernels for one set of instructions.
#pragma once

#include "attention.hpp"
#include "losses.hpp"

namespace lmlab {

// A unit or row needs `scratch` floats of its own.
struct Kernels {
    const char* name;
    bool (*supported)();
    Index (*scratch)(const Shape&);
    void (*forward_float)(const Forward<float>&, Index unit, float* scratch);
    void (*forward_bfloat16)(const Forward<std::uint16_t>&, Index unit, float* scratch);
    void (*backward_float)(const Backward<float>&, Index unit, float* scratch);
    void (*backward_bfloat16)(const Backward<std::uint16_t>&, Index unit, float* scratch);
    Index (*scratch_single)(const Shape&);
    void (*single_float)(const Single<float>&, Index unit, float* scratch);
    void (*single_bfloat16)(const Single<std::uint16_t>&, Index unit, float* scratch);
    Index (*scratch_losses)(Index vocab);
    void (*losses_float)(const Losses<float>&, Index row, float* scratch);
    void (*losses_bfloat16)(const Losses<std::uint16_t>&, Index row, float* scratch);
};

}  // namespace lmlab
