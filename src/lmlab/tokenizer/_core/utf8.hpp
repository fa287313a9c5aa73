// UTF-8: decoding of valid text, validation, and replacement of what is invalid.
//
// Text is validated once, when it enters (TextStream, Encoder); everything behind that decodes
// without checks. Validation skips ASCII sixteen bytes at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace lmlab {

using Byte = std::uint8_t;

// A text that is not UTF-8; becomes ValueError("invalid UTF-8 at byte N").
struct InvalidUtf8 : std::runtime_error {
    explicit InvalidUtf8(std::uint64_t where)
        : std::runtime_error("invalid UTF-8 at byte " + std::to_string(where)), offset(where) {}
    std::uint64_t offset;
};

inline std::uint64_t load64(const Byte* p) {
    std::uint64_t word;
    std::memcpy(&word, p, 8);
    return word;
}

inline bool is_continuation(Byte byte) {
    return (byte & 0xC0) == 0x80;
}

struct CodePoint {
    std::uint32_t value;
    unsigned length;
};

// The code point at p, which begins a valid sequence.
inline CodePoint decode(const Byte* p) {
    const std::uint32_t lead = p[0];
    if (lead < 0x80) return {lead, 1};
    if (lead < 0xE0) return {(lead & 0x1F) << 6 | (p[1] & 0x3Fu), 2};
    if (lead < 0xF0) return {(lead & 0x0F) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu), 3};
    return {(lead & 0x07) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu), 4};
}

// The sequence at p: its length when it is valid; otherwise 0, with `bad` the bytes that one U+FFFD
// stands for (the longest prefix of some valid sequence, as Python and the WHATWG replace), and
// `cut` true when that prefix reaches the end of the text.
struct Sequence {
    unsigned length, bad;
    bool cut;
};

inline Sequence check_sequence(const Byte* p, const Byte* end) {
    const Byte lead = *p;
    if (lead < 0x80) return {1, 0, false};
    unsigned length;
    Byte low = 0x80, high = 0xBF;  // what the second byte may be
    if (lead >= 0xC2 && lead <= 0xDF) {
        length = 2;
    } else if ((lead & 0xF0) == 0xE0) {
        length = 3;
        if (lead == 0xE0) low = 0xA0;   // shorter form exists
        if (lead == 0xED) high = 0x9F;  // surrogates
    } else if (lead >= 0xF0 && lead <= 0xF4) {
        length = 4;
        if (lead == 0xF0) low = 0x90;
        if (lead == 0xF4) high = 0x8F;  // beyond U+10FFFF
    } else {
        return {0, 1, false};
    }
    for (unsigned i = 1; i < length; ++i) {
        if (p + i == end) return {0, i, true};
        if (p[i] < low || p[i] > high) return {0, i, false};
        low = 0x80, high = 0xBF;
    }
    return {length, 0, false};
}

// The first byte of the first invalid or cut sequence, or `end`.
inline const Byte* skip_valid(const Byte* p, const Byte* end) {
    while (p < end) {
        while (end - p >= 16 && ((load64(p) | load64(p + 8)) & 0x8080808080808080u) == 0) p += 16;
        // A stretch that is not ASCII usually goes on for a while.
        for (int i = 0; i < 16 && p < end; ++i) {
            if (*p < 0x80) {
                ++p;
                continue;
            }
            const Sequence sequence = check_sequence(p, end);
            if (sequence.length == 0) return p;
            p += sequence.length;
        }
    }
    return p;
}

// Append the bytes from p with U+FFFD for every invalid sequence; stops before a sequence that is
// cut by the end unless `final`. Returns where it stopped.
inline const Byte* append_replaced(std::vector<Byte>& out, const Byte* p, const Byte* end,
                                   bool final) {
    static constexpr Byte kReplacement[] = {0xEF, 0xBF, 0xBD};
    while (p < end) {
        const Byte* valid = skip_valid(p, end);
        out.insert(out.end(), p, valid);
        p = valid;
        if (p == end) break;
        const Sequence sequence = check_sequence(p, end);
        if (sequence.cut && !final) break;
        out.insert(out.end(), kReplacement, kReplacement + 3);
        p += sequence.bad;
    }
    return p;
}

}  // namespace lmlab
