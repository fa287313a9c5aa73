// A vocabulary and its merges, and the merging of one pretoken.
//
// Short pretokens are merged by looking over all pairs for the lowest rank again and again, which
// beats any clever structure at five tokens; long ones go through a heap, so that a pretoken of a
// megabyte costs n log n. Either way neighbours are linked by position and nothing is moved.
//
// A merge waits for the one before it: the lowest pair, its result, the ranks of two new pairs,
// each a read from memory. Short pretokens are therefore merged several at a time, a step of each
// in turn, so that the processor waits for all of them at once.
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

#include "keys.hpp"
#include "lane.hpp"

namespace lmlab {

class Bpe {
public:
    static constexpr std::uint32_t kNone = UINT32_MAX;
    static constexpr std::size_t kLanes = 8;  // pretokens merged at once
    using Merges = std::vector<std::pair<std::string, std::string>>;

    // Without merges, ids are ranks: every way to put a token together from two counts. There, and
    // with `ignore_merges`, a pretoken that is a token is not merged. No text becomes a `hidden` id.
    Bpe(std::vector<std::string> vocab, const Merges* merges,
        const std::vector<std::uint32_t>& hidden, bool ignore_merges)
        : vocab_(std::move(vocab)),
          whole_first_(merges == nullptr || ignore_merges),
          byte_pairs_(1 << 16) {
        if (vocab_.size() >> MergeTable::kIdBits ||
            (merges && merges->size() >> MergeTable::kRankBits))
            throw std::invalid_argument("more than 2,097,151 ids or 4,194,303 merges");
        std::vector<bool> is_hidden(vocab_.size());
        for (const std::uint32_t id : hidden) is_hidden.at(id) = true;
        ids_.reserve(vocab_.size());
        // Where two ids have the same bytes, the lower one is the token.
        for (std::size_t id = 0; id < vocab_.size(); ++id)
            if (!vocab_[id].empty() && !is_hidden[id])
                ids_.emplace(vocab_[id], static_cast<std::uint32_t>(id));
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
        if (merges == nullptr) add_all_splits();
        else add_merges(*merges);
        table_.build();
        for (unsigned a = 0; a < 256; ++a)
            for (unsigned b = 0; b < 256; ++b)
                byte_pairs_[a << 8 | b] = table_.rank(byte_ids_[a], byte_ids_[b]);
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
        merge_below(MergeTable::kNoRank, {p, size}, work);
    }

    struct Pretoken {
        const Byte* p;
        std::size_t size;
    };

    // Call done(i, ids, count) with the ids of each of up to kLanes pretokens, in any order. None
    // is empty or longer than Lane::kLongest.
    template <class Done>
    void encode_together(const Pretoken* pretokens, std::size_t count, const Done& done) const {
        merge_together(MergeTable::kNoRank, pretokens, count, done);
    }

    // What the merges before the one that makes a token leave of it: two ids, where ids are ranks
    // and the vocabulary is one of byte-level BPE.
    void split(std::uint32_t id, Workspace& work) const {
        const std::string& token = vocab_[id];
        merge_below(id, {reinterpret_cast<const Byte*>(token.data()), token.size()}, work);
    }

private:
    struct Hash {
        std::size_t operator()(std::string_view text) const {
            return hash_bytes(reinterpret_cast<const Byte*>(text.data()), text.size());
        }
    };

    std::vector<std::string> vocab_;
    bool whole_first_;
    std::unordered_map<std::string_view, std::uint32_t, Hash> ids_;  // views into vocab_
    std::uint32_t byte_ids_[256];
    std::vector<std::uint32_t> byte_pairs_;  // ranks
    std::vector<std::uint32_t> results_;     // by rank
    MergeTable table_;

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
                if (b != kNone) table_.add(a, b, id);
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
            table_.add(a, b, i);
            results_.push_back(c);
        }
    }

    // What merges of ranks below `limit` leave, in work.ids.
    void merge_below(std::uint32_t limit, Pretoken pretoken, Workspace& work) const {
        work.ids.clear();
        const auto append = [&](std::size_t, const std::uint32_t* ids, std::size_t count) {
            work.ids.insert(work.ids.end(), ids, ids + count);
        };
        const auto [p, size] = pretoken;
        if (size == 0) return;
        if (size <= Lane::kLongest) {
            merge_together(limit, &pretoken, 1, append);
        } else if (const std::uint32_t id = whole(limit, pretoken); id != kNone) {
            work.ids.push_back(id);
        } else {
            merge_long(limit, p, size, work);
        }
    }

    // The id of a pretoken that is a token, or kNone where it has to be merged all the same.
    std::uint32_t whole(std::uint32_t limit, Pretoken pretoken) const {
        if (!whole_first_ || limit != MergeTable::kNoRank) return kNone;
        return find({reinterpret_cast<const char*>(pretoken.p), pretoken.size});
    }

    template <class Done>
    void merge_together(std::uint32_t limit, const Pretoken* pretokens, std::size_t count,
                        const Done& done) const {
        Lane lanes[kLanes];
        std::size_t active[kLanes], left = 0;
        for (std::size_t i = 0; i < count; ++i) {
            const std::uint32_t id = whole(limit, pretokens[i]);
            if (id != kNone) {
                done(i, &id, 1);
                continue;
            }
            begin(lanes[i], pretokens[i]);
            active[left++] = i;
        }
        const std::uint32_t stop = Lane::pair(limit, 0);
        while (left > 0)
            for (std::size_t i = 0; i < left;) {
                Lane& lane = lanes[active[i]];
                const std::uint32_t best = lane.lowest();
                if (best < stop) {
                    lane.merge(Lane::place_of(best), results_[Lane::rank_of(best)], table_);
                    ++i;
                } else {
                    done(active[i], lane.ids, lane.gather());
                    active[i] = active[--left];
                }
            }
    }

    void begin(Lane& lane, Pretoken pretoken) const {
        const auto [p, size] = pretoken;
        lane.begin(size);
        lane.ids[1] = byte_ids_[p[0]];
        for (std::size_t i = 1; i < size; ++i) {
            lane.ids[i + 1] = byte_ids_[p[i]];
            lane.pairs[i] = Lane::pair(byte_pairs_[std::size_t{p[i - 1]} << 8 | p[i]], i);
        }
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
            const std::uint32_t found = table_.rank(nodes[i].id, nodes[i + 1].id);
            if (found < limit) heap.emplace_back(found, i);
        }
        std::make_heap(heap.begin(), heap.end(), std::greater<>());
        const auto add = [&](std::size_t i) {
            const std::uint32_t found = table_.rank(nodes[i].id, nodes[nodes[i].next].id);
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
            if (table_.rank(nodes[i].id, nodes[j].id) != best) continue;
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
