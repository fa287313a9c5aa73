// The kernels with vectors of 4 floats.
#define LANES 4

#include "kernels.hpp"

namespace lmlab {
namespace {
#include "simd.hpp"
#include "attention_kernel.hpp"
#include "single_kernel.hpp"
#include "losses_kernel.hpp"

bool supported() {
    return true;
}
}  // namespace

extern const Kernels generic{
    "generic", supported, scratch_of, forward<float>, forward<std::uint16_t>, backward<float>,
    backward<std::uint16_t>, scratch_of_single, forward_single<float>,
    forward_single<std::uint16_t>, scratch_of_losses, losses<float>, losses<std::uint16_t>,
};

}  // namespace lmlab
