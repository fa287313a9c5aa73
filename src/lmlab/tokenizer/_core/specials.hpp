// Finding special tokens: the earliest one wins and, at one place, the longest.
//
// The tokens form a trie, whose edges lie in one hash table. A place is looked at only when its
// first two bytes begin some token, which a table of bits says; from there the trie is followed as
// far as the text goes along. So the time depends on the text and hardly on the number of tokens.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "utf8.hpp"

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

    explicit Specials(std::vector<Special> tokens = {}) : tokens_(std::move(tokens)) {
        std::size_t bytes = 0;
        for (const Special& token : tokens_) bytes += token.text.size();
        if (bytes >= std::numeric_limits<std::uint32_t>::max() >> kByteBits)
            throw std::invalid_argument("the special tokens together are longer than 16 MiB");
        std::size_t slots = 16;
        while (slots < 2 * bytes) slots *= 2;
        edges_.resize(tokens_.empty() ? 0 : slots);
        for (std::size_t i = 0; i < tokens_.size(); ++i) insert(tokens_[i].text, i);
        for (unsigned byte = 0; byte < 256; ++byte)
            if (is_lead_[byte]) leads_.push_back(static_cast<Byte>(byte));
    }

    std::size_t longest() const { return longest_; }

    // The first special token in [p, end). Unless `final`, more text may follow.
    Match find(const Byte* p, const Byte* end, bool final) const {
        for (p = next_start(p, end); p < end; p = next_start(p + 1, end)) {
            std::uint32_t token = kNone;
            std::uint32_t node = 0;
            const Byte* q = p;
            while (q < end && (node = child(node, *q)) != 0) {
                ++q;
                if (ends_[node] != kNone) token = ends_[node];
            }
            if (!final && q == end && has_children_[node]) return {p, nullptr, true};
            if (token != kNone) return {p, &tokens_[token], false};
        }
        return {end, nullptr, false};
    }

    // Whether a special token could lie across p; the text goes on for at least longest() bytes.
    bool straddle(const Byte* begin, const Byte* p) const {
        for (std::size_t back = 1; back < longest_; ++back) {
            if (static_cast<std::size_t>(p - begin) < back) return false;
            std::uint32_t node = 0;
            for (const Byte* q = p - back; (node = child(node, *q)) != 0; ++q)
                if (q >= p && ends_[node] != kNone) return true;
        }
        return false;
    }

private:
    static constexpr unsigned kByteBits = 8;
    static constexpr std::uint32_t kNone = UINT32_MAX;

    struct Edge {
        std::uint32_t key = 0, node = 0;  // key: the parent's number and the byte; node 0: empty
    };

    std::vector<Special> tokens_;
    std::vector<Edge> edges_;                  // open addressing, a power of two of them
    std::vector<std::uint32_t> ends_{kNone};   // by node: the token that ends there
    std::vector<std::uint8_t> has_children_{0};  // by node
    std::vector<Byte> leads_;
    std::array<bool, 256> is_lead_{};
    std::array<std::uint64_t, 1024> begins_{};  // a bit for each two bytes that begin a token
    std::size_t longest_ = 0;

    std::size_t slot_of(std::uint32_t key) const {
        return static_cast<std::size_t>(key * 0x9E3779B97F4A7C15u >> 32) & (edges_.size() - 1);
    }

    // The node that the byte leads to, or 0.
    std::uint32_t child(std::uint32_t node, Byte byte) const {
        const std::uint32_t key = node << kByteBits | byte;
        std::size_t slot = slot_of(key);
        while (edges_[slot].node != 0 && edges_[slot].key != key)
            slot = (slot + 1) & (edges_.size() - 1);
        return edges_[slot].node;
    }

    void insert(const std::string& text, std::size_t index) {
        longest_ = std::max(longest_, text.size());
        const Byte first = static_cast<Byte>(text[0]);
        is_lead_[first] = true;
        for (unsigned second = 0; second < 256; ++second)
            if (text.size() == 1 || static_cast<Byte>(text[1]) == second) {
                const unsigned pair = first << 8u | second;
                begins_[pair / 64] |= std::uint64_t{1} << pair % 64;
            }
        std::uint32_t node = 0;
        for (const char c : text) {
            has_children_[node] = 1;
            const std::uint32_t key = node << kByteBits | static_cast<Byte>(c);
            node = child(node, static_cast<Byte>(c));
            if (node != 0) continue;
            node = static_cast<std::uint32_t>(ends_.size());
            std::size_t slot = slot_of(key);
            while (edges_[slot].node != 0) slot = (slot + 1) & (edges_.size() - 1);
            edges_[slot] = {key, node};
            ends_.push_back(kNone);
            has_children_.push_back(0);
        }
        ends_[node] = static_cast<std::uint32_t>(index);
    }

    bool may_begin(const Byte* p, const Byte* end) const {
        if (end - p < 2) return is_lead_[*p];
        const unsigned pair = p[0] << 8u | p[1];
        return begins_[pair / 64] >> pair % 64 & 1;
    }

    const Byte* next_start(const Byte* p, const Byte* end) const {
        if (p >= end || leads_.empty()) return end;
        if (leads_.size() == 1) {
            for (; p < end; ++p) {
                const void* found = std::memchr(p, leads_[0], static_cast<std::size_t>(end - p));
                if (found == nullptr) return end;
                p = static_cast<const Byte*>(found);
                if (may_begin(p, end)) return p;
            }
            return end;
        }
        while (p < end && !may_begin(p, end)) ++p;
        return p;
    }
};

}  // namespace lmlab
