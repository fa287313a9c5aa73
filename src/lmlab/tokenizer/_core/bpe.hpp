// A vocabulary and its merges, and the merging of one pretoken.
//
// A pair of ids leads to (rank, id) through one open-addressing table. Short pretokens are merged
// by looking over all neighbours for the lowest rank again and again, which beats any clever
// structure at five tokens; long ones go through a heap and a linked list, so that a pretoken of a
// megabyte costs n log n.
#pragma once

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "counter.hpp"

namespace lmlab {

class Bpe {
public:
    static constexpr std::uint32_t kNone = UINT32_MAX;

    struct Merge {
        std::uint32_t rank = kNone, id = 0;
    };

    // Without merges, ids are ranks: every way to put a token together from two counts.
    Bpe(std::vector<std::string> vocab, const std::vector<std::pair<std::string, std::string>>* merges)
        : vocab_(std::move(vocab)), by_rank_(merges == nullptr) {
        ids_.reserve(vocab_.size());
        // Where two ids have the same bytes, the lower one is the token.
        for (std::size_t id = 0; id < vocab_.size(); ++id)
            if (!vocab_[id].empty()) ids_.emplace(vocab_[id], static_cast<std::uint32_t>(id));
        for (unsigned byte = 0; byte < 256; ++byte) {
            const char c = static_cast<char>(byte);
            byte_ids_[byte] = find({&c, 1});
            if (byte_ids_[byte] == kNone)
                throw std::invalid_argument("the vocabulary has no token for byte " + std::to_string(byte));
        }
        if (by_rank_) {
            slots_.resize(1 << 12);
            for (std::size_t id = 0; id < vocab_.size(); ++id) {
                const std::string_view token = vocab_[id];
                if (token.size() < 2 || find(token) != id) continue;
                for (std::size_t cut = 1; cut < token.size(); ++cut) {
                    const std::uint32_t a = find(token.substr(0, cut));
                    if (a == kNone) continue;
                    const std::uint32_t b = find(token.substr(cut));
                    if (b != kNone) insert(a, b, static_cast<std::uint32_t>(id), static_cast<std::uint32_t>(id));
                }
            }
        } else {
            slots_.resize(1 << 12);
            std::string joined;
            for (std::size_t rank = 0; rank < merges->size(); ++rank) {
                const auto& [left, right] = (*merges)[rank];
                joined.assign(left).append(right);
                const std::uint32_t a = find(left), b = find(right), c = find(joined);
                if (a == kNone || b == kNone || c == kNone)
                    throw std::invalid_argument("merge " + std::to_string(rank) +
                                                " needs a token that the vocabulary does not have");
                insert(a, b, static_cast<std::uint32_t>(rank), c);
            }
        }
    }

    const std::vector<std::string>& vocab() const { return vocab_; }

    std::uint32_t find(std::string_view token) const {
        const auto found = ids_.find(token);
        return found == ids_.end() ? kNone : found->second;
    }

    // What a thread needs for merging.
    struct Workspace {
        std::vector<std::uint32_t> ids, ranks;
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
        if (by_rank_) {
            const std::uint32_t id = find({reinterpret_cast<const char*>(p), size});
            if (id != kNone) {
                work.ids.push_back(id);
                return;
            }
        }
        if (size <= kShortPretoken) encode_short(p, size, work);
        else encode_long(p, size, work);
    }

private:
    static constexpr std::size_t kShortPretoken = 64;

    struct Slot {
        std::uint64_t pair = UINT64_MAX;
        Merge merge;
    };
    struct Hash {
        using is_transparent = void;
        std::size_t operator()(std::string_view text) const {
            return hash_bytes(reinterpret_cast<const Byte*>(text.data()), text.size());
        }
    };

    std::vector<std::string> vocab_;
    bool by_rank_;
    std::unordered_map<std::string_view, std::uint32_t, Hash> ids_;  // views into vocab_
    std::uint32_t byte_ids_[256];
    std::vector<Slot> slots_;
    std::size_t used_ = 0;

    static std::uint64_t join(std::uint64_t a, std::uint64_t b) { return a << 32 | b; }

    std::size_t slot(std::uint64_t pair) const {
        std::size_t at = mix(pair, 0x9E3779B97F4A7C15u) & (slots_.size() - 1);
        while (slots_[at].pair != pair && slots_[at].pair != UINT64_MAX)
            at = (at + 1) & (slots_.size() - 1);
        return at;
    }

    Merge lookup(std::uint32_t a, std::uint32_t b) const { return slots_[slot(join(a, b))].merge; }

    void insert(std::uint32_t a, std::uint32_t b, std::uint32_t rank, std::uint32_t id) {
        if (2 * used_ >= slots_.size()) {
            std::vector<Slot> old(2 * slots_.size());
            old.swap(slots_);
            for (const Slot& one : old)
                if (one.pair != UINT64_MAX) slots_[slot(one.pair)] = one;
        }
        Slot& target = slots_[slot(join(a, b))];
        if (target.pair != UINT64_MAX) return;  // the first mention counts
        target = {join(a, b), {rank, id}};
        ++used_;
    }

    void encode_short(const Byte* p, std::size_t size, Workspace& work) const {
        auto& ids = work.ids;
        Merge merges[kShortPretoken];
        ids.resize(size);
        for (std::size_t i = 0; i < size; ++i) ids[i] = byte_ids_[p[i]];
        for (std::size_t i = 0; i + 1 < size; ++i) merges[i] = lookup(ids[i], ids[i + 1]);
        while (size > 1) {
            std::size_t best = 0;
            for (std::size_t i = 1; i + 1 < size; ++i)
                if (merges[i].rank < merges[best].rank) best = i;
            if (merges[best].rank == kNone) break;
            ids[best] = merges[best].id;
            for (std::size_t i = best + 1; i + 1 < size; ++i) ids[i] = ids[i + 1];
            for (std::size_t i = best + 1; i + 2 < size; ++i) merges[i] = merges[i + 1];
            --size;
            if (best + 1 < size) merges[best] = lookup(ids[best], ids[best + 1]);
            if (best > 0) merges[best - 1] = lookup(ids[best - 1], ids[best]);
        }
        ids.resize(size);
    }

    void encode_long(const Byte* p, std::size_t size, Workspace& work) const {
        auto& nodes = work.nodes;
        auto& heap = work.heap;
        nodes.resize(size);
        heap.clear();
        for (std::size_t i = 0; i < size; ++i) nodes[i] = {byte_ids_[p[i]], i - 1, i + 1};
        const auto add = [&](std::size_t i) {
            const Merge merge = lookup(nodes[i].id, nodes[nodes[i].next].id);
            if (merge.rank == kNone) return;
            heap.emplace_back(merge.rank, i);
            std::push_heap(heap.begin(), heap.end(), std::greater<>());
        };
        for (std::size_t i = 0; i + 1 < size; ++i) add(i);
        for (std::size_t steps = 1; !heap.empty(); ++steps) {
            if (steps % 65536 == 0 && work.watch) work.watch();
            std::pop_heap(heap.begin(), heap.end(), std::greater<>());
            const auto [rank, i] = heap.back();
            heap.pop_back();
            // Something else may have happened here since.
            if (nodes[i].id == kNone || nodes[i].next >= size) continue;
            const std::size_t j = nodes[i].next;
            const Merge merge = lookup(nodes[i].id, nodes[j].id);
            if (merge.rank != rank) continue;
            nodes[i].id = merge.id;
            nodes[j].id = kNone;
            nodes[i].next = nodes[j].next;
            if (nodes[i].next < size) {
                nodes[nodes[i].next].previous = i;
                add(i);
            }
            if (i > 0) add(nodes[i].previous);
        }
        for (std::size_t i = 0; i < size; i = nodes[i].next) work.ids.push_back(nodes[i].id);
        if (size > (1 << 20)) nodes = {}, heap = {};
    }
};

}  // namespace lmlab
