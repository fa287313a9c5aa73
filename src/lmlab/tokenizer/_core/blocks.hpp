// The GPT-2 pattern on 64 bytes at once.
//
// Taken one by one, pretokens cost a mispredicted branch each: nobody can foresee whether a word, a
// comma or a line break comes next. So the classes of 64 bytes are gathered as bit masks, and where
// pretokens begin follows by shifting and masking them, for all of them together. A block always
// begins where a pretoken does, so nothing is carried from one to the next.
#pragma once

#include "scanner.hpp"

namespace lmlab {

inline constexpr std::size_t kBlockBytes = 64;
inline constexpr std::size_t kBatch = 256;  // pretokens handed on at a time, at most
inline constexpr std::ptrdiff_t kBlockReach =
    80;                                // bytes that must be there, for keys and decoding
inline constexpr int kLastStart = 60;  // what begins later may depend on bytes behind the block

#if defined(__SSE2__)

struct BlockMasks {
    std::uint64_t letters = 0, numbers = 0, spaces = 0, blanks = 0, quotes = 0, high = 0;
};

inline BlockMasks classify_block(const Byte* p) {
    BlockMasks masks;
    for (int part = 0; part < 4; ++part) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16 * part));
        // Each range is moved to the lowest signed values, where one comparison tells.
        const auto below = [](__m128i moved, int count) {
            return _mm_cmplt_epi8(moved, _mm_set1_epi8(static_cast<char>(-128 + count)));
        };
        const auto bits = [part](__m128i mask) {
            return static_cast<std::uint64_t>(static_cast<unsigned>(_mm_movemask_epi8(mask)))
                   << (16 * part);
        };
        const __m128i lower = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
        const __m128i blank = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(' '));
        masks.letters |=
            bits(below(_mm_sub_epi8(lower, _mm_set1_epi8(static_cast<char>('a' + 128))), 26));
        masks.numbers |=
            bits(below(_mm_sub_epi8(bytes, _mm_set1_epi8(static_cast<char>('0' + 128))), 10));
        masks.spaces |= bits(_mm_or_si128(
            blank, below(_mm_sub_epi8(bytes, _mm_set1_epi8(static_cast<char>('\t' + 128))), 5)));
        masks.blanks |= bits(blank);
        masks.quotes |= bits(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('\'')));
        masks.high |= bits(bytes);
    }
    return masks;
}

inline constexpr std::size_t kNotHere = SIZE_MAX;

// Writes the ends of the pretokens that begin at p and lie in the block, and returns how many: none
// when the first is too long, kNotHere when the block has spaces of several bytes. p begins a
// pretoken and kBlockReach bytes are there.
inline std::size_t gpt2_block(const Byte* p, const Byte** ends) {
    BlockMasks masks = classify_block(p);
    for (std::uint64_t high = masks.high; high != 0;) {
        const int at = std::countr_zero(high);
        const Char c = char_at(p + at);
        const std::uint64_t bits = ((std::uint64_t{1} << c.length) - 1) << at;
        if (is_letter(c.cls)) masks.letters |= bits;
        else if (c.cls == kNumber) masks.numbers |= bits;
        else if (c.cls == kSpace) return kNotHere;
        high &= ~bits;
    }
    const auto begins = [](std::uint64_t run) { return run & ~(run << 1); };
    const std::uint64_t spaces = masks.spaces;
    const std::uint64_t signs = ~(masks.letters | masks.numbers | spaces);
    // Every run begins a pretoken, except that a blank goes with what follows it; and the last
    // space of a run is by itself or goes with what follows.
    std::uint64_t starts = begins(masks.letters) | begins(masks.numbers) | begins(signs);
    starts &= ~(masks.blanks << 1);
    starts |= begins(spaces) | (spaces & ~(spaces >> 1)) | 1;
    for (std::uint64_t quotes = masks.quotes & starts; quotes != 0; quotes &= quotes - 1) {
        const int at = std::countr_zero(quotes);
        if (at > kLastStart) break;
        const Byte second = p[at + 1], third = p[at + 2];
        int length = 0;
        if (second == 's' || second == 't' || second == 'm' || second == 'd') length = 2;
        else if ((second == 'l' && third == 'l') ||
                 ((second == 'v' || second == 'r') && third == 'e'))
            length = 3;
        if (length == 0) continue;
        starts &= ~(std::uint64_t{6} << at);
        starts |= std::uint64_t{1} << (at + length);
    }
    starts &= (std::uint64_t{2} << kLastStart) - 2;
    std::size_t count = 0;
    for (; starts != 0; starts &= starts - 1) ends[count++] = p + std::countr_zero(starts);
    return count;
}

#else

inline std::size_t gpt2_block(const Byte*, const Byte**) {
    return kNotHere;
}

#endif

// gpt2_block for the end of the text, which is copied and padded with line breaks: they end every
// run but one of spaces, and that may go on to the end.
inline std::size_t gpt2_tail(const Byte* p, const Byte* end, const Byte** ends) {
    Byte padded[2 * kBlockReach];
    const std::ptrdiff_t left = end - p;  // less than kBlockReach
    std::memcpy(padded, p, static_cast<std::size_t>(left));
    std::memset(padded + left, '\n', sizeof padded - static_cast<std::size_t>(left));
    const std::size_t found = gpt2_block(padded, ends);
    if (found == kNotHere) return kNotHere;
    std::size_t count = 0;
    for (; count < found && ends[count] - padded < left; ++count)
        ends[count] = p + (ends[count] - padded);
    if (left <= kLastStart) ends[count++] = end;
    return count;
}

// Writes the ends of up to kBatch pretokens from p on (p < end) and returns how many. Unless
// `certain`, stops before one that more text could change: perhaps at once.
template <Pattern kPattern>
std::size_t next_pretokens(const Byte* p, const Byte* end, bool certain, const Byte** ends) {
    std::size_t count = 0;
    if constexpr (kPattern == Pattern::kGpt2) {
        while (end - p >= kBlockReach && count <= kBatch - kBlockBytes) {
            const std::size_t more = gpt2_block(p, ends + count);
            if (more == 0 || more == kNotHere) break;
            count += more;
            p = ends[count - 1];
        }
        if (count > 0) return count;
        if (end - p < kBlockReach && certain) {
            count = gpt2_tail(p, end, ends);
            if (count != 0 && count != kNotHere) return count;
            count = 0;
        }
    }
    Scanner<kPattern> scanner(end);
    while (p < end && count < 16) {
        p = scanner.next(p);
        if (scanner.touched && !certain) break;
        ends[count++] = p;
    }
    return count;
}

}  // namespace lmlab
