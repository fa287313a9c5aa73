// The kernels with vectors of 8 floats.
#define LANES 8

#include "kernels.hpp"

namespace lmlab {
namespace {
#include "simd.hpp"
#include "attention_kernel.hpp"
#include "single_kernel.hpp"
#include "losses_kernel.hpp"

bool supported() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
}  // namespace

extern const Kernels avx2{
    "avx2", supported, scratch_of, forward<float>, forward<std::uint16_t>, backward<float>,
    backward<std::uint16_t>, scratch_of_single, forward_single<float>,
    forward_single<std::uint16_t>, scratch_of_losses, losses<float>, losses<std::uint16_t>,
};

}  // namespace lmlab
