// The pretokenizers: where the next pretoken of each pattern ends.
//
// A pattern is a handful of decisions on the classes of the first two or three characters and then
// the end of a run of letters, digits, signs or spaces. The decisions are written out by hand, in
// the order of the pattern's alternatives; classes of ASCII come from one table, of everything else
// from two (unicode_tables.hpp). Runs of ASCII letters, where most text is, end by comparing
// sixteen bytes at a time, which also spares the branch that a byte loop mispredicts at the end of
// nearly every word.
//
// A scanner notes in `touched` when it looked for a character at the end of its text. A pretoken
// that was found without touching the end stays the same whatever text follows: that is how a
// stream knows which pretokens are certain.
#pragma once

#include <array>
#include <bit>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "unicode_tables.hpp"
#include "utf8.hpp"

namespace lmlab {

enum class Pattern { kGpt2, kCl100k, kO200k };

inline Class unicode_class(std::uint32_t code) {
    return static_cast<Class>(kUnicodeClass[kUnicodeBlock[code >> 7] << 7 | (code & 127)]);
}

inline constexpr std::array<std::uint8_t, 128> kAsciiClass = [] {
    std::array<std::uint8_t, 128> table{};
    for (unsigned code = 0; code < 128; ++code)
        table[code] = kUnicodeClass[kUnicodeBlock[0] << 7 | code];
    return table;
}();

inline bool is_letter(Class c) {
    return c >= kUpper && c <= kLetter;
}
inline bool is_sign(Class c) {
    return c == kOther || c == kMark;
}  // [^\s\p{L}\p{N}]
inline bool is_newline(Byte byte) {
    return byte == '\r' || byte == '\n';
}

struct Char {
    Class cls;
    unsigned length;
};

// The character at p, which is inside the text.
inline Char char_at(const Byte* p) {
    if (*p < 0x80) return {static_cast<Class>(kAsciiClass[*p]), 1};
    const CodePoint code = decode(p);
    return {unicode_class(code.value), code.length};
}

#if defined(__SSE2__)
// Bit i is set when byte i of the sixteen at p is no ASCII letter (kLowerOnly: no lower case one).
template <bool kLowerOnly>
inline unsigned not_letters16(const Byte* p) {
    __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    if (!kLowerOnly) bytes = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
    // 'a'..'z' move to the 26 lowest signed values.
    const __m128i moved = _mm_sub_epi8(bytes, _mm_set1_epi8(static_cast<char>('a' + 128)));
    const __m128i beyond = _mm_cmpgt_epi8(moved, _mm_set1_epi8(-128 + 25));
    return static_cast<unsigned>(_mm_movemask_epi8(beyond));
}
#endif

template <Pattern kPattern>
class Scanner {
public:
    explicit Scanner(const Byte* end) : end_(end) {}

    // The end of the pretoken that begins at p (p < end).
    const Byte* next(const Byte* p) {
        if constexpr (kPattern == Pattern::kGpt2) return next_gpt2(p);
        if constexpr (kPattern == Pattern::kCl100k) return next_cl100k(p);
        if constexpr (kPattern == Pattern::kO200k) return next_o200k(p);
    }

    bool touched = false;

private:
    const Byte* end_;

    Char peek(const Byte* p) {
        if (p == end_) {
            touched = true;
            return {kEnd, 0};
        }
        return char_at(p);
    }

    template <bool kLowerOnly>
    const Byte* skip_ascii_letters(const Byte* p) {
#if defined(__SSE2__)
        while (end_ - p >= 16) {
            const unsigned stop = not_letters16<kLowerOnly>(p);
            if (stop != 0) return p + std::countr_zero(stop);
            p += 16;
        }
#endif
        return p;
    }

    // \p{L}*
    const Byte* letters(const Byte* p) {
        for (;;) {
            p = skip_ascii_letters<false>(p);
            for (;;) {
                const Char c = peek(p);
                if (!is_letter(c.cls)) return p;
                p += c.length;
                if (c.length == 1 && end_ - p >= 16) break;  // back in ASCII
            }
        }
    }

    // \p{N}{0,most}
    const Byte* numbers(const Byte* p, std::size_t most = SIZE_MAX) {
        for (; most > 0; --most) {
            const Char c = peek(p);
            if (c.cls != kNumber) break;
            p += c.length;
        }
        return p;
    }

    // [^\s\p{L}\p{N}]*
    const Byte* signs(const Byte* p) {
        for (;;) {
            const Char c = peek(p);
            if (!is_sign(c.cls)) return p;
            p += c.length;
        }
    }

    // [\r\n]*, or [\r\n/]*
    const Byte* newlines(const Byte* p, bool slashes) {
        for (;; ++p) {
            if (p == end_) {
                touched = true;
                return p;
            }
            if (!is_newline(*p) && !(slashes && *p == '/')) return p;
        }
    }

    // The end of 's, 't, 'm, 'd, 'll, 've or 're at p, or p when none is there.
    template <bool kAnyCase>
    const Byte* contraction(const Byte* p) {
        if (p == end_ || *p != '\'') return p;
        const std::ptrdiff_t left = end_ - p;
        const auto letter = [&](int i) {  // 0 stands for what is not there
            if (i < left) return kAnyCase && p[i] < 0x80 ? p[i] | 0x20 : int{p[i]};
            touched = true;
            return 0;
        };
        switch (letter(1)) {
            case 's':
            case 'd':
            case 'm':
            case 't': return p + 2;
            case 'l': return letter(2) == 'l' ? p + 3 : p;
            case 'v':
            case 'r': return letter(2) == 'e' ? p + 3 : p;
            // U+017F, the long s, is an s in another case.
            case 0xC5: return kAnyCase && p[2] == 0xBF ? p + 3 : p;
            default: return p;
        }
    }

    // \s+ at p as the patterns end it: \s*[\r\n]+ first if kNewlinesFirst, then \s+(?!\S), then
    // \s+.
    template <bool kNewlinesFirst>
    const Byte* spaces(const Byte* p) {
        const Byte* last = p;  // the last character of the run
        const Byte* after_newline = p;
        const Byte* q = p;
        for (;;) {
            const Char c = peek(q);
            if (c.cls != kSpace) {
                if (kNewlinesFirst && after_newline != p) return after_newline;
                return c.cls == kEnd || last == p ? q : last;
            }
            last = q;
            q += c.length;
            if (kNewlinesFirst && is_newline(*last)) after_newline = q;
        }
    }

    // '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
    const Byte* next_gpt2(const Byte* p) {
        if (*p == '\'') {
            const Byte* q = contraction<false>(p);
            return q != p ? q : signs(p + 1);
        }
        const Byte* q = p + (*p == ' ');
        const Char c = peek(q);
        if (is_letter(c.cls)) return letters(q + c.length);
        if (is_sign(c.cls)) return signs(q + c.length);
        if (c.cls == kNumber) return numbers(q + c.length);
        return spaces<false>(p);
    }

    // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}
    // | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
    const Byte* next_cl100k(const Byte* p) {
        const Char first = char_at(p);
        if (is_letter(first.cls)) return letters(p + first.length);
        if (first.cls == kNumber) return numbers(p + first.length, 2);
        if (*p == '\'') {
            const Byte* q = contraction<true>(p);
            if (q != p) return q;
        }
        const Byte* q = p + first.length;
        if (!is_newline(*p)) {
            const Char c = peek(q);
            if (is_letter(c.cls)) return letters(q + c.length);
            if (*p == ' ' && is_sign(c.cls)) return newlines(signs(q + c.length), false);
        }
        if (is_sign(first.cls)) return newlines(signs(q), false);
        return spaces<true>(p);
    }

    // In o200k a word is upper* lower+ or, failing that, upper+ lower*; letters without case and
    // marks count as both. The end of such a word at p, or nullptr. In the first form upper* takes
    // all it can and then gives back until lower+ has something: the last character that is both.
    const Byte* word(const Byte* p, bool lower_needed) {
        const Byte* q = p;
        const Byte* after_both = nullptr;
        for (;;) {
            const Char c = peek(q);
            if (c.cls == kLower) break;
            if (c.cls != kUpper && c.cls != kLetter && c.cls != kMark) {
                if (lower_needed) return after_both;
                return q == p ? nullptr : q;
            }
            q += c.length;
            if (c.cls != kUpper) after_both = q;
        }
        for (;;) {  // lower+
            q = skip_ascii_letters<true>(q);
            for (;;) {
                const Char c = peek(q);
                if (c.cls != kLower && c.cls != kLetter && c.cls != kMark) return q;
                q += c.length;
                if (c.length == 1 && end_ - q >= 16) break;
            }
        }
    }

    // [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|...)?
    // |[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|...)?
    // |\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
    const Byte* next_o200k(const Byte* p) {
        const Char first = char_at(p);
        if (first.cls == kNumber) return numbers(p + first.length, 2);
        const Byte* q = p + first.length;
        if (!is_newline(*p)) {
            const Byte* found = nullptr;
            const bool may_prefix = !is_letter(first.cls);
            if (may_prefix) {
                const Class second = peek(q).cls;
                if (is_letter(second) || second == kMark) {
                    found = word(q, true);
                    if (found == nullptr && first.cls == kMark) found = word(p, true);
                    if (found == nullptr) found = word(q, false);
                } else if (first.cls == kMark) {
                    found = word(p, true);
                }
            } else {
                found = word(p, true);
                if (found == nullptr) found = word(p, false);
            }
            if (found != nullptr) return contraction<true>(found);
            if (*p == ' ') {
                const Char c = peek(q);
                if (is_sign(c.cls)) return newlines(signs(q + c.length), true);
            }
        }
        if (is_sign(first.cls)) return newlines(signs(q), true);
        return spaces<true>(p);
    }
};

}  // namespace lmlab
