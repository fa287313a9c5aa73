// Cutting text into special tokens and pretokens, and finding where it may be cut for good.
//
// Special tokens are looked for first (specials.hpp), then the pattern cuts the text between them.
#pragma once

#include "blocks.hpp"
#include "specials.hpp"

namespace lmlab {

// Hand the pretokens of [p, end) to sink.pretokens(begin, ends, count), some at a time, and every
// special token to sink.special(token). Unless `final`, stops before what following text could
// change. Returns where it stopped: `end` when final.
template <Pattern kPattern, class Sink>
const Byte* segment_as(const Byte* p, const Byte* end, bool final, const Specials& specials,
                       Sink& sink) {
    const Byte* ends[kBatch];
    while (p < end) {
        const Specials::Match match = specials.find(p, end, final);
        const bool certain = final || match.token != nullptr;
        while (p < match.begin) {
            const std::size_t count = next_pretokens<kPattern>(p, match.begin, certain, ends);
            if (count == 0) return p;
            sink.pretokens(p, ends, count);
            p = ends[count - 1];
        }
        if (match.token == nullptr) break;
        sink.special(*match.token);
        p += match.token->text.size();
    }
    return p;
}

template <class Sink>
const Byte* segment(Pattern pattern, const Byte* p, const Byte* end, bool final,
                    const Specials& specials, Sink& sink) {
    switch (pattern) {
        case Pattern::kGpt2: return segment_as<Pattern::kGpt2>(p, end, final, specials, sink);
        case Pattern::kCl100k: return segment_as<Pattern::kCl100k>(p, end, final, specials, sink);
        default: return segment_as<Pattern::kO200k>(p, end, final, specials, sink);
    }
}

// Whether all three patterns cut before p whatever else the text holds, so that the text on either
// side can be cut on its own: a space after something else, the border between letters and digits,
// and a sign or space after letters or digits except what belongs to a word (marks, apostrophes).
// begin < p < end, and p begins a character.
inline bool is_border(const Byte* begin, const Byte* p) {
    const Byte* q = p - 1;
    while (q > begin && is_continuation(*q)) --q;
    const Class before = char_at(q).cls;
    if (*p == ' ') return before != kSpace;
    const Class after = char_at(p).cls;
    if (is_letter(before))
        return after == kNumber || after == kSpace || (after == kOther && *p != '\'');
    if (before == kNumber)
        return is_letter(after) || after == kSpace || (after == kOther && *p != '\'');
    return false;
}

// The last place in (begin, p] where the text may be cut, or `begin`.
inline const Byte* last_border(const Byte* begin, const Byte* p, const Byte* end,
                               const Specials& specials) {
    if (static_cast<std::size_t>(end - begin) <= specials.longest()) return begin;
    p = std::min(p, end - std::max<std::size_t>(specials.longest(), 1));
    for (; p > begin; --p)
        if (!is_continuation(*p) && is_border(begin, p) && !specials.straddle(begin, p)) return p;
    return begin;
}

}  // namespace lmlab
