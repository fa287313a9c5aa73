// Hashes of lines, of n-grams of words, and MinHash signatures of sets of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define LMLAB_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define LMLAB_CLONES
#endif

namespace lmlab::dedup {

// A bijection of 64 bits in which every bit of the input reaches every bit of the output.
inline std::uint64_t mix(std::uint64_t x) {
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93ULL;
    x ^= x >> 29;
    x *= 0xa24baed4963ee407ULL;
    return x ^ (x >> 32);
}

inline std::uint64_t hash_bytes(std::string_view text) {
    std::uint64_t h = 0x9e3779b97f4a7c15ULL ^ text.size();
    const char* p = text.data();
    std::size_t left = text.size();
    for (; left >= 8; p += 8, left -= 8) {
        std::uint64_t word;
        std::memcpy(&word, p, 8);
        h = mix(h ^ word) + 0x9e3779b97f4a7c15ULL;
    }
    std::uint64_t tail = 0;
    if (left > 0) {
        std::memcpy(&tail, p, left);
    }
    return mix(h ^ tail);
}

// The hash of each line, without its "\n" or "\r\n"; text after the last "\n" is a line.
inline std::vector<std::uint64_t> line_hashes(std::string_view text) {
    std::vector<std::uint64_t> hashes;
    while (!text.empty()) {
        const std::size_t end = text.find('\n');
        std::string_view line = text.substr(0, end);
        text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
        if (!line.empty() && line.back() == '\r') {
            line.remove_suffix(1);
        }
        hashes.push_back(hash_bytes(line));
    }
    return hashes;
}

inline std::vector<std::uint64_t> word_hashes(std::string_view text) {
    std::vector<std::uint64_t> hashes;
    std::size_t begin = 0;
    while (begin < text.size()) {
        std::size_t end = text.find(' ', begin);
        end = end == std::string_view::npos ? text.size() : end;
        if (end > begin) {
            hashes.push_back(hash_bytes(text.substr(begin, end - begin)));
        }
        begin = end + 1;
    }
    return hashes;
}

// The hash of each n-gram of words, in order. A text of fewer words is one n-gram; one of none has none.
inline std::vector<std::uint64_t> ngram_hashes(std::string_view text, std::size_t n) {
    const std::vector<std::uint64_t> words = word_hashes(text);
    std::vector<std::uint64_t> hashes;
    if (words.empty()) {
        return hashes;
    }
    const std::size_t size = std::min(n, words.size());
    hashes.reserve(words.size() - size + 1);
    for (std::size_t first = 0; first + size <= words.size(); ++first) {
        std::uint64_t h = size;
        for (std::size_t i = first; i < first + size; ++i) {
            h = mix(h + words[i]);
        }
        hashes.push_back(h);
    }
    return hashes;
}

inline std::vector<std::uint64_t> sorted_set(std::vector<std::uint64_t> hashes) {
    std::sort(hashes.begin(), hashes.end());
    hashes.erase(std::unique(hashes.begin(), hashes.end()), hashes.end());
    return hashes;
}

// For each of `count` permutations of 32 bits the smallest image of a hash; all ones for no hash.
LMLAB_CLONES inline void signature(const std::uint64_t* hashes, std::size_t size,
                                   const std::uint32_t* factors, const std::uint32_t* terms,
                                   std::size_t count, std::uint32_t* out) {
    std::fill(out, out + count, 0xffffffffU);
    for (std::size_t j = 0; j < size; ++j) {
        const auto x = static_cast<std::uint32_t>(hashes[j]);
        for (std::size_t i = 0; i < count; ++i) {
            std::uint32_t y = x * factors[i] + terms[i];  // bijective: the factors are odd
            y = (y ^ (y >> 15)) * 0x846ca68bU;
            y ^= y >> 16;
            out[i] = y < out[i] ? y : out[i];
        }
    }
}

// How many elements two sorted sets share.
inline std::size_t shared(const std::uint64_t* a, std::size_t a_size, const std::uint64_t* b,
                          std::size_t b_size) {
    std::size_t i = 0, j = 0, count = 0;
    while (i < a_size && j < b_size) {
        const std::uint64_t x = a[i], y = b[j];
        count += x == y;
        i += x <= y;
        j += y <= x;
    }
    return count;
}

}  // namespace lmlab::dedup
