// From a pair of ids to the rank of its merge.
//
// Two of three pairs that are asked for do not merge, and no processor can foresee which; so
// nothing here is foreseen: no branch, and one slot to look at. That is perfect hashing: each
// bucket of pairs has a number that takes its pairs to slots of their own (Belazzougui, Botelho and
// Dietzfelbinger, "Hash, displace, and compress", 2009).
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace lmlab {

class MergeTable {
public:
    static constexpr unsigned kIdBits = 21, kRankBits = 22;
    static constexpr std::uint32_t kNoRank = (1u << kRankBits) - 1;
    static constexpr std::uint32_t kNobody = (1u << kIdBits) - 1;  // an id that is in no pair

    // Where a pair is added twice, the first rank counts.
    void add(std::uint32_t a, std::uint32_t b, std::size_t rank) {
        added_.push_back(join(a, b) << kRankBits | rank);
    }

    // To be called once, behind the last add().
    void build() {
        const auto hash_of = [](std::uint64_t slot) { return hash(slot >> kRankBits); };
        std::ranges::stable_sort(added_, {}, hash_of);
        const auto twice = std::ranges::unique(added_, {}, hash_of);
        added_.erase(twice.begin(), twice.end());
        std::size_t slots = std::bit_ceil(std::max<std::size_t>(2 * added_.size(), 16));
        while (!place_all(slots)) slots *= 2;
        added_ = {};
    }

    // The rank of a pair's merge, or kNoRank.
    std::uint32_t rank(std::uint32_t a, std::uint32_t b) const {
        const std::uint64_t pair = join(a, b), h = hash(pair);
        const std::uint64_t slot = slots_[place(h, displacements_[h >> bucket_shift_])];
        const std::uint64_t other = 0 - std::uint64_t{slot >> kRankBits != pair};
        return static_cast<std::uint32_t>(slot | other) & kNoRank;
    }

private:
    static constexpr std::uint64_t kEmpty = UINT64_MAX;  // that of kNobody twice, never asked for

    std::vector<std::uint64_t> added_;
    std::vector<std::uint64_t> slots_;  // pair and rank
    std::vector<std::uint16_t> displacements_;
    unsigned bucket_shift_ = 0, slot_shift_ = 0;

    static std::uint64_t join(std::uint64_t a, std::uint64_t b) { return a << kIdBits | b; }
    static std::uint64_t hash(std::uint64_t pair) { return pair * 0x9E3779B97F4A7C15u; }
    std::size_t place(std::uint64_t h, std::uint64_t displacement) const {
        return ((h ^ displacement) * 0xE7037ED1A0B428DBu) >> slot_shift_;
    }

    // Whether every bucket found a displacement. `added_` is in the order of the buckets.
    bool place_all(std::size_t slots) {
        const std::size_t buckets = slots / 8;
        slot_shift_ = static_cast<unsigned>(64 - std::countr_zero(slots));
        bucket_shift_ = static_cast<unsigned>(64 - std::countr_zero(buckets));
        slots_.assign(slots, kEmpty);
        displacements_.assign(buckets, 0);
        struct Range {
            std::size_t begin, end;
        };
        std::vector<Range> ranges;
        const auto bucket_of = [&](std::size_t i) {
            return hash(added_[i] >> kRankBits) >> bucket_shift_;
        };
        for (std::size_t begin = 0, end = 0; begin < added_.size(); begin = end) {
            while (end < added_.size() && bucket_of(end) == bucket_of(begin)) ++end;
            ranges.push_back({begin, end});
        }
        // The fullest first, while most slots are free.
        std::ranges::stable_sort(ranges, std::greater{}, [](Range r) { return r.end - r.begin; });
        return std::ranges::all_of(ranges, [&](Range range) {
            std::uint16_t& displacement = displacements_[bucket_of(range.begin)];
            while (!fits(range.begin, range.end, displacement))
                if (++displacement == 0) return false;
            return true;
        });
    }

    // Puts a bucket into its slots, if they are free.
    bool fits(std::size_t begin, std::size_t end, std::uint64_t displacement) {
        const auto slot_of = [&](std::size_t i) -> std::uint64_t& {
            return slots_[place(hash(added_[i] >> kRankBits), displacement)];
        };
        std::size_t i = begin;
        for (; i < end && slot_of(i) == kEmpty; ++i) slot_of(i) = added_[i];
        if (i == end) return true;
        while (i-- > begin) slot_of(i) = kEmpty;
        return false;
    }
};

}  // namespace lmlab
