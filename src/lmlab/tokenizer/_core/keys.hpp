// Pretokens as keys of hash tables, and the hashes.
//
// Up to 15 bytes are two words, padded with zeros, with the length in the last byte: compared and
// hashed without following a pointer.
#pragma once

#include <array>
#include <bit>
#include <cstring>

#include "utf8.hpp"

namespace lmlab {

static_assert(std::endian::native == std::endian::little, "keys are masked as little-endian words");

struct Key {  // empty when high == 0; not cleared by itself, so that arrays of keys cost nothing
    std::uint64_t low, high;
    bool operator==(const Key&) const = default;
    unsigned size() const { return static_cast<unsigned>(high >> 56); }
};

inline constexpr std::size_t kShort = 15;

inline constexpr std::array<Key, 16> kKeyMask = [] {
    std::array<Key, 16> masks{};
    for (unsigned size = 0; size < 16; ++size)
        for (unsigned i = 0; i < size; ++i)
            (i < 8 ? masks[size].low : masks[size].high) |= std::uint64_t{0xFF} << (i % 8 * 8);
    return masks;
}();

// The key of the `size` (1..15) bytes at p; bytes up to `end` may be read.
inline Key make_key(const Byte* p, std::size_t size, const Byte* end) {
    Key key;
    if (end - p >= 16) {
        key = {load64(p) & kKeyMask[size].low, load64(p + 8) & kKeyMask[size].high};
    } else {
        Byte padded[16] = {};
        std::memcpy(padded, p, size);
        key = {load64(padded), load64(padded + 8)};
    }
    key.high |= std::uint64_t{size} << 56;
    return key;
}

inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
    __extension__ using Wide = unsigned __int128;
    const Wide product = static_cast<Wide>(a) * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

inline std::uint64_t hash_key(const Key& key) {
    return mix(key.low ^ 0x9E3779B97F4A7C15u, key.high ^ 0xD1B54A32D192ED03u);
}

inline std::uint64_t hash_bytes(const Byte* p, std::size_t size) {
    std::uint64_t hash = size * 0x9E3779B97F4A7C15u;
    for (; size >= 16; p += 16, size -= 16)
        hash = mix(load64(p) ^ hash, load64(p + 8) ^ 0xD1B54A32D192ED03u);
    if (size > 0) {
        Byte padded[16] = {};
        std::memcpy(padded, p, size);
        hash = mix(load64(padded) ^ hash, load64(padded + 8) ^ 0xA0761D6478BD642Fu);
    }
    return mix(hash ^ 0xE7037ED1A0B428DBu, 0x8EBC6AF09C88C6E3u);
}

// Slot of a hash in a table of any size: the upper bits, scaled.
inline std::size_t scale(std::uint64_t hash, std::size_t slots) {
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::size_t>((static_cast<Wide>(hash) * slots) >> 64);
}

}  // namespace lmlab
