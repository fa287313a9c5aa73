// Bindings of the hashes for deduplication; each function takes UTF-8 as bytes.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "shingles.hpp"

namespace lmlab::dedup {

namespace nb = nanobind;

using Hashes = nb::ndarray<nb::numpy, std::uint64_t, nb::ndim<1>, nb::c_contig>;
using HashesIn = nb::ndarray<const std::uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Numbers = nb::ndarray<const std::uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<nb::numpy, std::uint32_t, nb::ndim<2>, nb::c_contig>;

inline std::string_view view(const nb::bytes& text) { return {text.c_str(), text.size()}; }

inline Hashes array(std::vector<std::uint64_t>&& values) {
    auto* held = new std::vector<std::uint64_t>(std::move(values));
    nb::capsule owner(held, [](void* p) noexcept { delete static_cast<std::vector<std::uint64_t>*>(p); });
    return Hashes(held->data(), {held->size()}, owner);
}

inline Table signatures(const nb::list& texts, std::size_t n, const Numbers& factors, const Numbers& terms) {
    if (n == 0 || factors.shape(0) != terms.shape(0)) {
        throw nb::value_error("n must be >= 1, and there must be as many factors as terms");
    }
    const std::size_t rows = texts.size(), count = factors.shape(0);
    auto* values = new std::uint32_t[rows * count + 1];
    nb::capsule owner(values, [](void* p) noexcept { delete[] static_cast<std::uint32_t*>(p); });
    for (std::size_t row = 0; row < rows; ++row) {
        const auto text = nb::cast<nb::bytes>(texts[row]);
        const auto hashes = ngram_hashes(view(text), n);
        signature(hashes.data(), hashes.size(), factors.data(), terms.data(), count,
                  values + row * count);
    }
    return Table(values, {rows, count}, owner);
}

inline void bind(nb::module_& m) {
    m.def("line_hashes", [](const nb::bytes& text) { return array(line_hashes(view(text))); });
    m.def("ngram_hashes", [](const nb::bytes& text, std::size_t n) {
        if (n == 0) {
            throw nb::value_error("n must be >= 1");
        }
        return array(ngram_hashes(view(text), n));
    });
    m.def("ngram_set", [](const nb::bytes& text, std::size_t n) {
        if (n == 0) {
            throw nb::value_error("n must be >= 1");
        }
        return array(sorted_set(ngram_hashes(view(text), n)));
    });
    m.def("signatures", &signatures);
    m.def("shared", [](const HashesIn& a, const HashesIn& b) {
        return shared(a.data(), a.shape(0), b.data(), b.shape(0));
    });
}

}  // namespace lmlab::dedup
