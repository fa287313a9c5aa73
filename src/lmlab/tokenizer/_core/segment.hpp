// Cutting text into special tokens and pretokens, and finding where it may be cut for good.
//
// Special tokens are looked for first; the earliest wins and, at one place, the longest. There are
// few of them, so a table of first bytes leads to a list sorted by length.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "blocks.hpp"

namespace lmlab {

struct Special {
    std::string text;
    std::uint32_t id;
};

class Specials {
public:
    struct Match {
        const Byte* begin;  // end of the text when there is none
        const Special* token;
        bool undecided;  // a token begins here, or a longer one may, but the text ends too early
    };

    explicit Specials(std::vector<Special> tokens) : tokens_(std::move(tokens)) {
        std::stable_sort(tokens_.begin(), tokens_.end(), [](const auto& a, const auto& b) {
            return a.text.size() > b.text.size();
        });
        for (const Special& token : tokens_) {
            const Byte lead = static_cast<Byte>(token.text[0]);
            if (!is_lead_[lead]) leads_.push_back(lead);
            is_lead_[lead] = true;
        }
        if (!tokens_.empty()) longest_ = tokens_[0].text.size();
    }

    std::size_t longest() const { return longest_; }

    // The first special token in [p, end). Unless `final`, more text may follow.
    Match find(const Byte* p, const Byte* end, bool final) const {
        for (p = next_lead(p, end); p < end; p = next_lead(p + 1, end)) {
            const std::size_t left = static_cast<std::size_t>(end - p);
            for (const Special& token : tokens_) {
                const std::size_t size = token.text.size();
                if (!final && size > left && std::memcmp(token.text.data(), p, left) == 0)
                    return {p, nullptr, true};
                if (size <= left && std::memcmp(token.text.data(), p, size) == 0)
                    return {p, &token, false};
            }
        }
        return {end, nullptr, false};
    }

    // Whether a special token could lie across p; the text goes on for at least longest() bytes.
    bool straddle(const Byte* begin, const Byte* p) const {
        for (std::size_t back = 1; back < longest_; ++back) {
            if (static_cast<std::size_t>(p - begin) < back) return false;
            const Byte* q = p - back;
            if (!is_lead_[*q]) continue;
            for (const Special& token : tokens_) {
                if (token.text.size() <= back) break;
                if (std::memcmp(token.text.data(), q, token.text.size()) == 0) return true;
            }
        }
        return false;
    }

private:
    std::vector<Special> tokens_;  // longest first
    std::vector<Byte> leads_;
    std::array<bool, 256> is_lead_{};
    std::size_t longest_ = 0;

    const Byte* next_lead(const Byte* p, const Byte* end) const {
        if (p >= end || leads_.empty()) return end;
        if (leads_.size() == 1) {
            const void* found = std::memchr(p, leads_[0], static_cast<std::size_t>(end - p));
            return found ? static_cast<const Byte*>(found) : end;
        }
        while (p < end && !is_lead_[*p]) ++p;
        return p;
    }
};

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
