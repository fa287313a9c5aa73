// The kernels with vectors of 8 floats.
#define LANES 8

#include "kernels.hpp"

namespace lmlab {
namespace {
#include "all_kernels.hpp"

bool supported() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
}  // namespace

extern const Kernels avx2 = made("avx2", supported);

}  // namespace lmlab
