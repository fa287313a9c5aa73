// What the trainer knows of the pairs it has not forgotten, found by their tokens.
//
// Open addressing over indices into one array, so that a pair keeps its index when the table grows;
// nothing is removed but everything at once.
#pragma once

#include <cstdint>
#include <vector>

#include "keys.hpp"

namespace lmlab {

class PairTable {
public:
    struct Pair {
        std::uint32_t a, b;
        std::int64_t count;
        std::vector<std::uint32_t> positions;  // where it began; may no longer be there
    };

    void clear() {
        pairs_.clear();
        slots_.assign(1 << 12, 0);
    }

    Pair* find(std::uint32_t a, std::uint32_t b) {
        const std::uint32_t index = slots_[slot(a, b)];
        return index == 0 ? nullptr : &pairs_[index - 1];
    }

    // The index of a pair that is not there yet.
    std::uint32_t insert(std::uint32_t a, std::uint32_t b, std::int64_t count) {
        if (2 * pairs_.size() >= slots_.size()) grow();
        pairs_.push_back({a, b, count, {}});
        slots_[slot(a, b)] = static_cast<std::uint32_t>(pairs_.size());
        return static_cast<std::uint32_t>(pairs_.size() - 1);
    }

    Pair& operator[](std::uint32_t index) { return pairs_[index]; }
    std::size_t size() const { return pairs_.size(); }

    static std::size_t hash(std::uint64_t a, std::uint64_t b) {
        return static_cast<std::size_t>(mix(a << 32 | b, 0x9E3779B97F4A7C15u));
    }

private:
    std::vector<Pair> pairs_;
    std::vector<std::uint32_t> slots_;  // index + 1

    std::size_t slot(std::uint32_t a, std::uint32_t b) const {
        std::size_t at = hash(a, b) & (slots_.size() - 1);
        while (slots_[at] != 0 && (pairs_[slots_[at] - 1].a != a || pairs_[slots_[at] - 1].b != b))
            at = (at + 1) & (slots_.size() - 1);
        return at;
    }

    void grow() {
        slots_.assign(2 * slots_.size(), 0);
        for (std::size_t i = 0; i < pairs_.size(); ++i)
            slots_[slot(pairs_[i].a, pairs_[i].b)] = static_cast<std::uint32_t>(i + 1);
    }
};

}  // namespace lmlab
