// A vocabulary and its merges, and the merging of one pretoken.
//
// A pair of ids leads to the rank of its merge. Most pairs that are asked for do not merge, so a
// small filter of bits, which stays in the cache, answers first; behind it is an open-addressing
// table whose slots hold pair and rank in one word, and pairs of bytes have a table of their own.
//
// Short pretokens are merged by looking over all pairs for the lowest rank again and again, which
// beats any clever structure at five tokens; long ones go through a heap, so that a pretoken of a
// megabyte costs n log n. Either way neighbours are linked by position and nothing is moved.
#pragma once

#include <algorithm>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "keys.hpp"

namespace lmlab {

class Bpe {
public:
    static constexpr std::uint32_t kNone = UINT32_MAX;
    static constexpr unsigned kIdBits = 21, kRankBits = 22;
    using Merges = std::vector<std::pair<std::string, std::string>>;

    // Without merges, ids are ranks: every way to put a token together from two counts.
    Bpe(std::vector<std::string> vocab, const Merges* merges)
        : vocab_(std::move(vocab)), by_id_(merges == nullptr), byte_pairs_(1 << 16, kNone) {
        if (vocab_.size() >> kIdBits || (merges && merges->size() >> kRankBits))
            throw std::invalid_argument("more than 2,097,151 ids or 4,194,303 merges");
        ids_.reserve(vocab_.size());
        // Where two ids have the same bytes, the lower one is the token.
        for (std::size_t id = 0; id < vocab_.size(); ++id)
            if (!vocab_[id].empty()) ids_.emplace(vocab_[id], static_cast<std::uint32_t>(id));
        for (unsigned byte = 0; byte < 256; ++byte) {
            const char c = static_cast<char>(byte);
            byte_ids_[byte] = find({&c, 1});
            if (byte_ids_[byte] == kNone) {
                char name[8];
                std::snprintf(name, sizeof name, "0x%02x", byte);
                throw std::invalid_argument(std::string("the vocabulary has no token for byte ") +
                                            name);
            }
        }
        resize(1 << 10);
        if (by_id_) add_all_splits();
        else add_merges(*merges);
        for (unsigned a = 0; a < 256; ++a)
            for (unsigned b = 0; b < 256; ++b)
                byte_pairs_[a << 8 | b] = rank(byte_ids_[a], byte_ids_[b]);
    }

    const std::vector<std::string>& vocab() const { return vocab_; }

    std::uint32_t find(std::string_view token) const {
        const auto found = ids_.find(token);
        return found == ids_.end() ? kNone : found->second;
    }

    // What a thread needs for merging.
    struct Workspace {
        std::vector<std::uint32_t> ids;  // the result
        struct Node {
            std::uint32_t id;
            std::size_t previous, next;
        };
        std::vector<Node> nodes;
        std::vector<std::pair<std::uint32_t, std::size_t>> heap;
        std::function<void()> watch;  // called now and then inside a very long pretoken
    };

    // The ids of one pretoken in work.ids.
    void encode(const Byte* p, std::size_t size, Workspace& work) const {
        work.ids.clear();
        if (by_id_) {
            const std::uint32_t id = find({reinterpret_cast<const char*>(p), size});
            if (id != kNone) {
                work.ids.push_back(id);
                return;
            }
        }
        merge_below(kNone, p, size, work);
    }

    // What the merges before the one that makes a token leave of it: two ids, where ids are ranks
    // and the vocabulary is one of byte-level BPE.
    void split(std::uint32_t id, Workspace& work) const {
        work.ids.clear();
        const std::string& token = vocab_[id];
        merge_below(id, reinterpret_cast<const Byte*>(token.data()), token.size(), work);
    }

private:
    static constexpr std::size_t kShortPretoken = 48;
    static constexpr std::uint64_t kEmpty = UINT64_MAX;

    struct Hash {
        std::size_t operator()(std::string_view text) const {
            return hash_bytes(reinterpret_cast<const Byte*>(text.data()), text.size());
        }
    };

    std::vector<std::string> vocab_;
    bool by_id_;
    std::unordered_map<std::string_view, std::uint32_t, Hash> ids_;  // views into vocab_
    std::uint32_t byte_ids_[256];
    std::vector<std::uint32_t> byte_pairs_;  // ranks
    std::vector<std::uint32_t> results_;     // by rank
    std::vector<std::uint64_t> slots_;       // pair and rank
    std::vector<std::uint64_t> filter_;      // a bit is set if some pair has this hash
    unsigned slot_shift_ = 0, filter_shift_ = 0;
    std::size_t used_ = 0;

    static std::uint64_t join(std::uint64_t a, std::uint64_t b) { return a << kIdBits | b; }
    static std::uint64_t hash(std::uint64_t pair) { return pair * 0x9E3779B97F4A7C15u; }

    void resize(std::size_t slots) {
        std::vector<std::uint64_t> old(slots, kEmpty);
        old.swap(slots_);
        slot_shift_ = static_cast<unsigned>(64 - std::countr_zero(slots));
        filter_.assign(slots / 4, 0);  // sixteen bits for a slot
        filter_shift_ = slot_shift_ - 4;
        for (const std::uint64_t slot : old)
            if (slot != kEmpty) place(slot);
    }

    void place(std::uint64_t slot) {
        const std::uint64_t h = hash(slot >> kRankBits);
        filter_[h >> filter_shift_ >> 6] |= std::uint64_t{1} << (h >> filter_shift_ & 63);
        std::size_t at = h >> slot_shift_;
        while (slots_[at] != kEmpty) at = (at + 1) & (slots_.size() - 1);
        slots_[at] = slot;
    }

    // The rank of a pair's merge, or kNone.
    std::uint32_t rank(std::uint32_t a, std::uint32_t b) const {
        const std::uint64_t pair = join(a, b), h = hash(pair);
        if ((filter_[h >> filter_shift_ >> 6] >> (h >> filter_shift_ & 63) & 1) == 0) return kNone;
        for (std::size_t at = h >> slot_shift_;; at = (at + 1) & (slots_.size() - 1)) {
            if (slots_[at] >> kRankBits == pair)
                return static_cast<std::uint32_t>(slots_[at] & ((1u << kRankBits) - 1));
            if (slots_[at] == kEmpty) return kNone;
        }
    }

    void insert(std::uint32_t a, std::uint32_t b, std::size_t rank_of_pair) {
        if (rank(a, b) != kNone) return;  // the first mention counts
        if (5 * ++used_ > 4 * slots_.size()) resize(2 * slots_.size());
        place(join(a, b) << kRankBits | rank_of_pair);
    }

    void add_all_splits() {
        results_.resize(vocab_.size());
        for (std::size_t id = 0; id < vocab_.size(); ++id) {
            results_[id] = static_cast<std::uint32_t>(id);
            const std::string_view token = vocab_[id];
            if (token.size() < 2 || find(token) != id) continue;
            for (std::size_t cut = 1; cut < token.size(); ++cut) {
                const std::uint32_t a = find(token.substr(0, cut));
                if (a == kNone) continue;
                const std::uint32_t b = find(token.substr(cut));
                if (b != kNone) insert(a, b, id);
            }
        }
    }

    void add_merges(const Merges& merges) {
        std::string joined;
        for (std::size_t i = 0; i < merges.size(); ++i) {
            const auto& [left, right] = merges[i];
            joined.assign(left).append(right);
            const std::uint32_t a = find(left), b = find(right), c = find(joined);
            if (a == kNone || b == kNone || c == kNone)
                throw std::invalid_argument("merge " + std::to_string(i) +
                                            " needs a token that the vocabulary does not have");
            insert(a, b, i);
            results_.push_back(c);
        }
    }

    // Rank and position of a pair in one number, the lowest of which is looked for. They are the
    // bits of finite, normal floats, which are ordered as the integers are: the lowest of four
    // floats is one instruction on every x86-64, that of four integers is not.
    static constexpr std::uint32_t kNoPair = 0x7F000000, kPairBias = 0x10000000;
    static constexpr unsigned kPlaceBits = 6;
    static_assert(kShortPretoken <= 1 << kPlaceBits && kRankBits + kPlaceBits <= 28);
    static std::uint32_t entry(std::uint32_t rank, std::size_t at) {
        return rank == kNone ? kNoPair
                             : kPairBias | rank << kPlaceBits | static_cast<std::uint32_t>(at);
    }

    // The lowest of pairs[0] to pairs[size - 1] and up to seven behind them.
    static std::uint32_t lowest(const std::uint32_t* pairs, std::size_t size) {
#if defined(__SSE2__)
        const auto load = [&](std::size_t i) {
            return _mm_castsi128_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(pairs + i)));
        };
        __m128 even = load(0), odd = load(4);
        for (std::size_t i = 8; i < size; i += 8) {
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

    // Append the ids that merges of ranks below `limit` leave.
    void merge_below(std::uint32_t limit, const Byte* p, std::size_t size, Workspace& work) const {
        if (size <= kShortPretoken) merge_short(limit, p, size, work);
        else merge_long(limit, p, size, work);
    }

    void merge_short(std::uint32_t limit, const Byte* p, std::size_t size, Workspace& work) const {
        const std::uint32_t stop = entry(limit, 0);
        std::uint32_t ids[kShortPretoken];
        std::uint32_t pairs[kShortPretoken + 8];  // of the pair that begins here
        Byte next[kShortPretoken + 1], previous[kShortPretoken + 1];
        for (std::size_t i = 0; i < size; ++i) {
            ids[i] = byte_ids_[p[i]];
            next[i] = static_cast<Byte>(i + 1);
            previous[i + 1] = static_cast<Byte>(i);
        }
        for (std::size_t i = 0; i + 1 < size; ++i)
            pairs[i] = entry(byte_pairs_[std::size_t{p[i]} << 8 | p[i + 1]], i);
        for (std::size_t i = size - 1; i < size + 8; ++i) pairs[i] = kNoPair;
        for (;;) {
            const std::uint32_t best = lowest(pairs, size);
            if (best >= stop) break;
            const std::size_t i = best & ((1u << kPlaceBits) - 1), j = next[i], after = next[j];
            ids[i] = results_[(best ^ kPairBias) >> kPlaceBits];
            pairs[j] = kNoPair;
            next[i] = static_cast<Byte>(after);
            previous[after] = static_cast<Byte>(i);
            pairs[i] = after < size ? entry(rank(ids[i], ids[after]), i) : kNoPair;
            if (i > 0) pairs[previous[i]] = entry(rank(ids[previous[i]], ids[i]), previous[i]);
        }
        for (std::size_t i = 0; i < size; i = next[i]) work.ids.push_back(ids[i]);
    }

    void merge_long(std::uint32_t limit, const Byte* p, std::size_t size, Workspace& work) const {
        auto& nodes = work.nodes;
        auto& heap = work.heap;
        const auto now_and_then = [&](std::size_t count) {
            if (count % 65536 == 65535 && work.watch) work.watch();
        };
        nodes.resize(size);
        heap.clear();
        for (std::size_t i = 0; i < size; ++i) nodes[i] = {byte_ids_[p[i]], i - 1, i + 1};
        for (std::size_t i = 0; i + 1 < size; ++i) {
            now_and_then(i);
            const std::uint32_t found = rank(nodes[i].id, nodes[i + 1].id);
            if (found < limit) heap.emplace_back(found, i);
        }
        std::make_heap(heap.begin(), heap.end(), std::greater<>());
        const auto add = [&](std::size_t i) {
            const std::uint32_t found = rank(nodes[i].id, nodes[nodes[i].next].id);
            if (found >= limit) return;
            heap.emplace_back(found, i);
            std::push_heap(heap.begin(), heap.end(), std::greater<>());
        };
        for (std::size_t steps = 0; !heap.empty(); ++steps) {
            now_and_then(steps);
            std::pop_heap(heap.begin(), heap.end(), std::greater<>());
            const auto [best, i] = heap.back();
            heap.pop_back();
            // Something else may have happened here since.
            if (nodes[i].id == kNone || nodes[i].next >= size) continue;
            const std::size_t j = nodes[i].next;
            if (rank(nodes[i].id, nodes[j].id) != best) continue;
            nodes[i].id = results_[best];
            nodes[j].id = kNone;
            nodes[i].next = nodes[j].next;
            if (nodes[i].next < size) {
                nodes[nodes[i].next].previous = i;
                add(i);
            }
            if (i > 0) add(nodes[i].previous);
        }
        for (std::size_t i = 0; i < size; i = nodes[i].next) work.ids.push_back(nodes[i].id);
        if (size > (1 << 20)) nodes = {}, heap = {};  // the next one is hardly as long
    }
};

}  // namespace lmlab
