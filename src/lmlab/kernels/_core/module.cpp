// The native core of the kernels: it chooses the instructions; lmlab/kernels/native.py describes it.
#include "bindings.hpp"

namespace lmlab {

#ifdef LMLAB_X86
extern const Kernels avx512, avx2;
#endif
extern const Kernels generic;

namespace {

std::vector<const Kernels*> kernels() {
    std::vector<const Kernels*> found;
#ifdef LMLAB_X86
    for (const Kernels* each : {&avx512, &avx2})
        if (each->supported()) found.push_back(each);
#endif
    found.push_back(&generic);
    return found;
}

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Kernels* each : kernels()) names.emplace_back(each->name);
    return names;
}

}  // namespace

const Kernels& kernels_of(const std::string& name) {
    for (const Kernels* each : kernels())
        if (each->name == name) return *each;
    throw std::invalid_argument("no such instructions: " + name);
}

}  // namespace lmlab

NB_MODULE(_core, m) {
    m.def("instruction_sets", &lmlab::instruction_sets);
    lmlab::bind_attention(m);
    lmlab::bind_losses(m);
    lmlab::bind_layers(m);
}
