// The kernels for one set of instructions.
#pragma once

#include <type_traits>

#include "attention.hpp"
#include "layers.hpp"
#include "losses.hpp"

namespace lmlab {

// A function for each dtype; a unit, such as a row, is computed by itself.
template <template <class> class Args>
struct Pass {
    void (*of_float)(const Args<float>&, Index unit, float* scratch);
    void (*of_bfloat16)(const Args<std::uint16_t>&, Index unit, float* scratch);

    template <class T>
    auto of() const {
        if constexpr (std::is_same_v<T, float>)
            return of_float;
        else
            return of_bfloat16;
    }
};

struct Kernels {
    const char* name;
    bool (*supported)();
    Pass<Forward> forward;
    Pass<Backward> backward;
    Pass<Single> single;
    Pass<Losses> losses;
    Pass<Gate> gate, gate_backward;
    Pass<Norm> norm, norm_backward;
    // Floats that a unit needs as scratch.
    Index (*attention_scratch)(const Shape&);
    Index (*single_scratch)(const Shape&);
    Index (*losses_scratch)(Index vocab);
    Index (*layer_scratch)(Index width);
};

}  // namespace lmlab
