// The kernels with vectors of 4 floats.
#define LANES 4

#include "kernels.hpp"

namespace lmlab {
namespace {
#include "all_kernels.hpp"

bool supported() {
    return true;
}
}  // namespace

extern const Kernels generic = made("generic", supported);

}  // namespace lmlab
