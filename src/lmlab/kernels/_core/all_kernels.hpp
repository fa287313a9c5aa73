// All kernels with vectors of LANES floats, in a namespace of their own.
#include "simd.hpp"
#include "rows.hpp"
#include "attention_blocks.hpp"
#include "attention_kernel.hpp"
#include "single_kernel.hpp"
#include "losses_kernel.hpp"
#include "layers_kernel.hpp"

Kernels made(const char* name, bool (*supported)()) {
    using Half = std::uint16_t;
    return {
        name,
        supported,
        {forward<float>, forward<Half>},
        {backward<float>, backward<Half>},
        {forward_single<float>, forward_single<Half>},
        {losses<float>, losses<Half>},
        {gate<float>, gate<Half>},
        {gate_backward<float>, gate_backward<Half>},
        {norm<float>, norm<Half>},
        {norm_backward<float>, norm_backward<Half>},
        scratch_of,
        scratch_of_single,
        scratch_of_losses,
        scratch_of_layer,
    };
}
