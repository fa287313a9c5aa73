// A short pretoken while it is merged: its tokens, and for each pair of neighbours the rank of
// their merge and its place in one number, the lowest of which is the merge to be made.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>

#include "merge_table.hpp"
#include "utf8.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace lmlab {

struct Lane {
    static constexpr std::size_t kLongest = 47;  // bytes of a pretoken

    // The numbers are the bits of finite, normal floats, which are ordered as the integers are: the
    // lowest of four floats is one instruction on every x86-64, that of four integers is not.
    static constexpr unsigned kPlaceBits = 6;
    static constexpr std::uint32_t kBias = 0x10000000;
    static_assert(kLongest < 1 << kPlaceBits && MergeTable::kRankBits + kPlaceBits <= 28);
    static std::uint32_t pair(std::uint32_t rank, std::size_t place) {
        return kBias | rank << kPlaceBits | static_cast<std::uint32_t>(place);
    }
    static std::size_t place_of(std::uint32_t pair) { return pair & ((1u << kPlaceBits) - 1); }
    static std::uint32_t rank_of(std::uint32_t pair) { return (pair ^ kBias) >> kPlaceBits; }
    static constexpr std::uint32_t kNoPair = kBias | MergeTable::kNoRank << kPlaceBits;

    // A token's place is that of its first byte, from 1 to `size`; with what is on either side of
    // the pretoken, nothing merges.
    std::size_t size;
    std::uint32_t ids[kLongest + 2];
    alignas(16) std::uint32_t pairs[kLongest + 1];  // of the token here and the next one
    Byte next[kLongest + 2], previous[kLongest + 2];

    // Tokens of a byte each, without ids and pairs.
    void begin(std::size_t bytes) {
        size = bytes;
        ids[0] = ids[size + 1] = MergeTable::kNobody;
        std::ranges::fill(pairs, kNoPair);
        std::memcpy(next, kPlaces.data() + 1, sizeof next);
        std::memcpy(previous + 1, kPlaces.data(), sizeof previous - 1);
    }

    // The lowest pair. Beyond the end, there are some that do not merge: of whole blocks, few sizes
    // are to be foreseen.
    std::uint32_t lowest() const {
#if defined(__SSE2__)
        const auto load = [&](std::size_t i) {
            return _mm_castsi128_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(pairs + i)));
        };
        __m128 even = _mm_min_ps(load(0), load(8)), odd = _mm_min_ps(load(4), load(12));
        if (size > 16) [[unlikely]]
            for (std::size_t i = 16; i <= kLongest; i += 8) {
                even = _mm_min_ps(even, load(i));
                odd = _mm_min_ps(odd, load(i + 4));
            }
        even = _mm_min_ps(even, odd);
        even = _mm_min_ps(even, _mm_movehl_ps(even, even));
        even = _mm_min_ss(even, _mm_shuffle_ps(even, even, 1));
        return static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_castps_si128(even)));
#else
        return *std::min_element(pairs, pairs + size);
#endif
    }

    // Puts the token at `place` together with the next one.
    void merge(std::size_t place, std::uint32_t id, const MergeTable& table) {
        const std::size_t gone = next[place], after = next[gone], before = previous[place];
        ids[place] = id;
        next[place] = static_cast<Byte>(after);
        previous[after] = static_cast<Byte>(place);
        pairs[gone] = kNoPair;
        pairs[place] = pair(table.rank(id, ids[after]), place);
        pairs[before] = pair(table.rank(ids[before], id), before);
    }

    // Moves the ids to the front; returns how many there are.
    std::size_t gather() {
        std::size_t count = 0;
        for (std::size_t i = 1; i <= size; i = next[i]) ids[count++] = ids[i];
        return count;
    }

private:
    static constexpr auto kPlaces = [] {
        std::array<Byte, kLongest + 3> places{};
        for (std::size_t i = 0; i < places.size(); ++i) places[i] = static_cast<Byte>(i);
        return places;
    }();
};

}  // namespace lmlab
