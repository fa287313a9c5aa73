// The kernels with vectors of 16 floats.
#define LANES 16

#include "kernels.hpp"

namespace lmlab {
namespace {
#include "all_kernels.hpp"

bool supported() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
}  // namespace

extern const Kernels avx512 = made("avx512", supported);

}  // namespace lmlab
