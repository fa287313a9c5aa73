// The kernels with vectors of 16 floats.
#define LANES 16

#include "kernels.hpp"

namespace lmlab {
namespace {
#include "simd.hpp"
#include "attention_kernel.hpp"
#include "single_kernel.hpp"
#include "losses_kernel.hpp"

bool supported() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
}  // namespace

extern const Kernels avx512{
    "avx512", supported, scratch_of, forward<float>, forward<std::uint16_t>, backward<float>,
    backward<std::uint16_t>, scratch_of_single, forward_single<float>,
    forward_single<std::uint16_t>, scratch_of_losses, losses<float>, losses<std::uint16_t>,
};

}  // namespace lmlab
