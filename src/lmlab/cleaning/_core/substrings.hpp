// Equal substrings of a text: a polynomial hash in constant time each, compared where hashes meet.
#pragma once

#include <algorithm>
#include <random>

#include "characters.hpp"

namespace lmlab {

__extension__ using Wide = unsigned __int128;

inline constexpr std::uint64_t kPrime = (std::uint64_t{1} << 61) - 1;

inline std::uint64_t multiply(std::uint64_t a, std::uint64_t b) {
    const Wide product = Wide{a} * b;
    const std::uint64_t sum =
        static_cast<std::uint64_t>(product & kPrime) + static_cast<std::uint64_t>(product >> 61);
    return sum >= kPrime ? sum - kPrime : sum;
}

// The base is drawn anew in each process, so that no text can be made to collide; results do not
// depend on it.
inline std::uint64_t hash_base() {
    static const std::uint64_t base = [] {
        std::random_device device;
        return ((std::uint64_t{device()} << 32 | device()) % (kPrime - (1u << 22))) + (1u << 21);
    }();
    return base;
}

// Prefix hashes of a sequence of characters; powers are shared by all texts of a thread.
class PrefixHashes {
public:
    void push(std::uint32_t c) {
        const std::uint64_t next = multiply(hashes_.back(), hash_base()) + c + 1;
        hashes_.push_back(next >= kPrime ? next - kPrime : next);
    }
    std::uint64_t of(Span part) const {
        const std::uint64_t front = multiply(hashes_[part.begin], power(part.size()));
        const std::uint64_t back = hashes_[part.end];
        return back >= front ? back - front : back + kPrime - front;
    }

private:
    std::vector<std::uint64_t> hashes_{0};

    static std::uint64_t power(std::size_t exponent) {
        thread_local std::vector<std::uint64_t> powers{1};
        if (exponent > (1u << 16)) {  // rare: by squaring, so that the table stays small
            std::uint64_t result = 1, factor = hash_base();
            for (; exponent != 0; exponent >>= 1, factor = multiply(factor, factor))
                if (exponent & 1) result = multiply(result, factor);
            return result;
        }
        while (powers.size() <= exponent) powers.push_back(multiply(powers.back(), hash_base()));
        return powers[exponent];
    }
};

// Counts substrings of one buffer of characters.
template <class Unit>
class SubstringCounts {
public:
    struct Entry {
        std::uint64_t hash;
        Span first;  // where it occurs first
        std::uint32_t count;
    };

    SubstringCounts(const Unit* data, const PrefixHashes& hashes) : data_(data), hashes_(hashes) {}

    // Forget everything and expect as many substrings.
    void reset(std::size_t expected) {
        std::size_t slots = 16;
        while (slots < 2 * expected) slots *= 2;
        table_.assign(slots, Entry{0, {0, 0}, 0});
        mask_ = slots - 1;
    }
    // Count one occurrence and return the entry.
    Entry& add(Span part) {
        Entry& entry = find(part);
        if (entry.count == 0) entry = {hashes_.of(part), part, 0};
        ++entry.count;
        return entry;
    }
    bool contains(Span part) { return find(part).count != 0; }

private:
    const Unit* data_;
    const PrefixHashes& hashes_;
    std::vector<Entry> table_;
    std::size_t mask_ = 0;

    Entry& find(Span part) {
        const std::uint64_t hash = hashes_.of(part);
        for (std::size_t slot = (hash ^ (hash >> 29)) & mask_;; slot = (slot + 1) & mask_) {
            Entry& entry = table_[slot];
            if (entry.count == 0) return entry;
            if (entry.hash == hash && entry.first.size() == part.size() &&
                std::equal(data_ + part.begin, data_ + part.end, data_ + entry.first.begin))
                return entry;
        }
    }
};

}  // namespace lmlab
