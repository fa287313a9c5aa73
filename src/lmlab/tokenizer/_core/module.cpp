// Python bindings of the tokenizer's native core.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

NB_MODULE(_core, m) {
    m.doc() = "Native core of lmlab.tokenizer.";
    m.def("abi", [] { return 1; }, "Version of the interface between this module and its Python callers.");
}
