// Learning merges from pretoken counts: always the pair with the highest count, ties to the greatest
// pair of byte strings (Sennrich et al. 2016, on bytes).
//
// Words. All distinct pretokens lie in one array, a cell per byte. A token is written into the first
// and the last cell it covers, so that from the beginning of a token the next one is its length
// away and the previous one is read from the cell before: merging writes two cells and no word is
// ever copied or walked. The first cell of a token that merged into its left neighbour is made
// kDead, so a remembered position is checked by comparing two cells. Words are sorted by count and
// those of one count begin in a new block of 16 cells, so that the weight of a cell is that of its
// block.
//
// Pairs. The count of a pair is highest when it first appears, in the merge that makes the younger
// of its tokens, and only falls from then on. Two things follow. A heap with stale counts is
// exact: what comes up is pushed back with its true count. And a pair below a threshold can be
// forgotten until nothing above the threshold is left; then all pairs are counted again with a
// lower one. Most pairs are rare, so most are never stored, and those that are fit in the cache.
#pragma once

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include "counter.hpp"
#include "pool.hpp"

namespace lmlab {

// The byte strings of the tokens so far, one after another.
class TokenBytes {
public:
    TokenBytes() {
        for (unsigned byte = 0; byte < 256; ++byte) {
            bytes_.push_back(static_cast<char>(byte));
            ends_.push_back(bytes_.size());
        }
    }

    std::size_t size() const { return ends_.size(); }
    std::size_t length(std::size_t id) const { return ends_[id] - begin(id); }
    std::string_view operator[](std::size_t id) const { return {&bytes_[begin(id)], length(id)}; }

    void append(std::size_t a, std::size_t b) {
        bytes_.reserve(bytes_.size() + length(a) + length(b));
        for (std::size_t id : {a, b}) bytes_.append(bytes_, begin(id), length(id));
        ends_.push_back(bytes_.size());
    }

private:
    std::string bytes_;
    std::vector<std::size_t> ends_;
    std::size_t begin(std::size_t id) const { return id == 0 ? 0 : ends_[id - 1]; }
};

using Merges = std::vector<std::pair<std::uint32_t, std::uint32_t>>;

// Pair of tokens -> what is known of it. Open addressing; nothing is ever removed in between.
class PairTable {
public:
    struct Pair {
        std::uint32_t a, b;
        std::int64_t count;
        std::vector<std::uint32_t> positions;  // where it began; may no longer be there
    };

    void clear() {
        pairs_.clear();
        slots_.assign(1 << 12, 0);
    }

    Pair* find(std::uint32_t a, std::uint32_t b) {
        const std::uint32_t index = slots_[slot(a, b)];
        return index == 0 ? nullptr : &pairs_[index - 1];
    }

    // The index of a pair that is not there yet.
    std::uint32_t insert(std::uint32_t a, std::uint32_t b, std::int64_t count) {
        if (2 * pairs_.size() >= slots_.size()) grow();
        pairs_.push_back({a, b, count, {}});
        slots_[slot(a, b)] = static_cast<std::uint32_t>(pairs_.size());
        return static_cast<std::uint32_t>(pairs_.size() - 1);
    }

    Pair& operator[](std::uint32_t index) { return pairs_[index]; }
    std::size_t size() const { return pairs_.size(); }

private:
    std::vector<Pair> pairs_;
    std::vector<std::uint32_t> slots_;  // index + 1

    std::size_t slot(std::uint32_t a, std::uint32_t b) const {
        std::size_t at = hash(a, b) & (slots_.size() - 1);
        while (slots_[at] != 0 && (pairs_[slots_[at] - 1].a != a || pairs_[slots_[at] - 1].b != b))
            at = (at + 1) & (slots_.size() - 1);
        return at;
    }

    static std::size_t hash(std::uint64_t a, std::uint64_t b) {
        return static_cast<std::size_t>(mix(a << 32 | b, 0x9E3779B97F4A7C15u));
    }

    void grow() {
        slots_.assign(2 * slots_.size(), 0);
        for (std::size_t i = 0; i < pairs_.size(); ++i)
            slots_[slot(pairs_[i].a, pairs_[i].b)] = static_cast<std::uint32_t>(i + 1);
    }
};

template <class Cell>
class Trainer {
public:
    // Takes the counts out of `counts`.
    Trainer(std::unique_ptr<SharedCounts> counts, std::size_t num_merges)
        : num_merges_(num_merges), limit_(256 + num_merges) {
        lay_out(*counts);
        counts.reset();
        left_.assign(limit_ + 1, 0);
        right_.assign(limit_ + 1, 0);
        left_list_.assign(limit_ + 1, kNone);
        right_list_.assign(limit_ + 1, kNone);
    }

    Merges run(const Poll& poll) {
        Merges merges;
        std::int64_t threshold = 0;
        while (merges.size() < num_merges_) {
            if (heap_.empty()) {
                if (threshold == 1) break;
                threshold = start_epoch(threshold);
                if (heap_.empty()) continue;
            }
            const std::uint32_t best = pop();
            PairTable::Pair& pair = pairs_[best];
            if (pair.count < threshold) continue;  // forgotten until the next epoch
            if (pair.count < heap_top_count_) {
                push(best);
                continue;
            }
            merges.emplace_back(pair.a, pair.b);
            tokens_.append(pair.a, pair.b);
            merge(best, threshold);
            poll(merges.size());
        }
        return merges;
    }

    const TokenBytes& tokens() const { return tokens_; }

private:
    static constexpr std::size_t kBlock = 16;
    static constexpr std::uint32_t kNone = UINT32_MAX;
    static constexpr Cell kDead = static_cast<Cell>(-1);

    std::size_t num_merges_;
    std::size_t limit_;  // no token has this id: the cell between words
    TokenBytes tokens_;
    std::vector<Cell> cells_;
    std::vector<std::int64_t> weights_;  // of each block of cells
    PairTable pairs_;

    struct Candidate {
        std::int64_t count;
        std::uint32_t pair;
    };
    std::vector<Candidate> heap_;
    std::int64_t heap_top_count_ = 0;

    // Of the merge at hand, by neighbour: the weight of the pairs that go and come.
    std::vector<std::int64_t> left_, right_;
    std::vector<std::uint32_t> left_list_, right_list_;
    std::vector<std::uint32_t> lefts_, rights_;

    Cell border() const { return static_cast<Cell>(limit_); }
    std::int64_t weight(std::size_t position) const { return weights_[position / kBlock]; }

    // Places each word with at least one pair: frequent ones first, blocks of one count each.
    void lay_out(const SharedCounts& counts) {
        constexpr std::size_t kRare = 1 << 12;
        struct Word {
            std::uint64_t count;
            const Byte* bytes;
            std::size_t size;
        };
        std::vector<Word> frequent;
        std::vector<std::size_t> cells_of(kRare, 0);  // by count
        const auto each = [&](auto visit) {
            for (unsigned part = 0; part < SharedCounts::kParts; ++part)
                counts.for_each(part, visit);
        };
        each([&](const Byte* bytes, std::size_t size, std::uint64_t count) {
            if (size < 2) return;
            if (count < kRare) cells_of[count] += size + 1;
            else frequent.push_back({count, bytes, size});
        });
        std::sort(frequent.begin(), frequent.end(),
                  [](const Word& a, const Word& b) { return a.count > b.count; });
        std::size_t total = kBlock;  // the cell before the first word is a border
        const auto up = [](std::size_t n) { return (n + kBlock - 1) / kBlock * kBlock; };
        for (std::size_t i = 0; i < frequent.size(); ++i) {
            if (i > 0 && frequent[i].count != frequent[i - 1].count) total = up(total);
            total += frequent[i].size + 1;
        }
        std::vector<std::size_t> next(kRare, 0);
        for (std::size_t count = kRare - 1; count > 0; --count) {
            next[count] = total = up(total);
            total += cells_of[count];
        }
        total = up(total) + kBlock;
        if (total >= kNone)
            throw std::length_error("more than 4 GiB of different pretokens; use a pattern that cuts finer");
        cells_.assign(total, border());
        weights_.assign(total / kBlock, 0);
        const auto place = [&](std::size_t at, const Byte* bytes, std::size_t size, std::uint64_t count) {
            std::copy(bytes, bytes + size, cells_.begin() + static_cast<std::ptrdiff_t>(at));
            for (std::size_t block = at / kBlock; block <= (at + size) / kBlock; ++block)
                weights_[block] = static_cast<std::int64_t>(count);
        };
        std::size_t at = kBlock;
        for (std::size_t i = 0; i < frequent.size(); ++i) {
            if (i > 0 && frequent[i].count != frequent[i - 1].count) at = up(at);
            place(at, frequent[i].bytes, frequent[i].size, frequent[i].count);
            at += frequent[i].size + 1;
        }
        each([&](const Byte* bytes, std::size_t size, std::uint64_t count) {
            if (size < 2 || count >= kRare) return;
            place(next[count], bytes, size, count);
            next[count] += size + 1;
        });
    }

    // visit(position, a, b) for every pair of neighbours, in order.
    template <class Visit>
    void each_pair(Visit visit) const {
        std::size_t at = 0;
        Cell a = cells_[0];
        while (true) {
            const std::size_t next = at + (a == border() ? 1 : tokens_.length(a));
            if (next >= cells_.size()) return;
            const Cell b = cells_[next];
            if (a != border() && b != border()) visit(at, a, b);
            at = next;
            a = b;
        }
    }

    std::int64_t start_epoch(std::int64_t threshold) {
        pairs_.clear();
        each_pair([&](std::size_t at, Cell a, Cell b) {
            PairTable::Pair* pair = pairs_.find(a, b);
            if (pair) pair->count += weight(at);
            else pairs_.insert(a, b, weight(at));
        });
        (void)threshold;
        each_pair([&](std::size_t at, Cell a, Cell b) {
            pairs_.find(a, b)->positions.push_back(static_cast<std::uint32_t>(at));
        });
        for (std::uint32_t i = 0; i < pairs_.size(); ++i) push(i);
        return 1;
    }

    bool worse(const Candidate& x, const Candidate& y) {
        if (x.count != y.count) return x.count < y.count;
        const PairTable::Pair& p = pairs_[x.pair];
        const PairTable::Pair& q = pairs_[y.pair];
        if (p.a != q.a) return tokens_[p.a] < tokens_[q.a];
        return tokens_[p.b] < tokens_[q.b];
    }

    void push(std::uint32_t pair) {
        heap_.push_back({pairs_[pair].count, pair});
        std::push_heap(heap_.begin(), heap_.end(), [this](auto& x, auto& y) { return worse(x, y); });
    }

    std::uint32_t pop() {
        std::pop_heap(heap_.begin(), heap_.end(), [this](auto& x, auto& y) { return worse(x, y); });
        const Candidate top = heap_.back();
        heap_.pop_back();
        heap_top_count_ = top.count;
        return top.pair;
    }

    void merge(std::uint32_t best, std::int64_t threshold) {
        const std::uint32_t a = pairs_[best].a, b = pairs_[best].b;
        const std::uint32_t c = static_cast<std::uint32_t>(tokens_.size() - 1);
        std::vector<std::uint32_t> positions = std::move(pairs_[best].positions);
        pairs_[best].positions = {};
        const std::size_t length_a = tokens_.length(a), length_b = tokens_.length(b);
        lefts_.clear();
        rights_.clear();
        std::int64_t twice = 0;  // weight of c c
        std::size_t kept = 0;
        for (const std::uint32_t at : positions) {
            if (cells_[at] != a || cells_[at + length_a] != b) continue;
            const std::size_t after = at + length_a + length_b;
            const Cell left = cells_[at - 1], right = cells_[after];
            const std::int64_t w = weight(at);
            cells_[at + length_a] = kDead;
            cells_[at] = static_cast<Cell>(c);
            cells_[after - 1] = static_cast<Cell>(c);
            positions[kept++] = at;
            if (left == c) {
                twice += w;
            } else {
                if (left_[left] == 0) lefts_.push_back(left);
                left_[left] += w;
            }
            if (right_[right] == 0) rights_.push_back(right);
            right_[right] += w;
        }
        positions.resize(kept);
        pairs_[best].count = 0;
        settle(a, b, c, twice, threshold);
        remember(positions, c, length_a + length_b);
        for (const std::uint32_t left : lefts_) left_list_[left] = kNone;
        for (const std::uint32_t right : rights_) right_list_[right] = kNone;
        left_list_[c] = right_list_[c] = kNone;
    }

    // Takes what the merge changed into the counts and opens the new pairs.
    void settle(std::uint32_t a, std::uint32_t b, std::uint32_t c, std::int64_t twice,
                std::int64_t threshold) {
        const auto lower = [&](std::uint32_t x, std::uint32_t y, std::int64_t w) {
            if (PairTable::Pair* pair = pairs_.find(x, y)) pair->count -= w;
        };
        const auto open = [&](std::uint32_t x, std::uint32_t y, std::int64_t w) {
            if (w < threshold) return kNone;
            const std::uint32_t index = pairs_.insert(x, y, w);
            push(index);
            return index;
        };
        for (const std::uint32_t left : lefts_) {
            const std::int64_t w = std::exchange(left_[left], 0);
            if (left == border()) continue;
            lower(left, a, w);
            left_list_[left] = open(left, c, w);
        }
        for (const std::uint32_t right : rights_) {
            const std::int64_t w = std::exchange(right_[right], 0);
            if (right == border()) continue;
            lower(b, right, w);
            right_list_[right] = open(c, right, right == a ? w - twice : w);
        }
        right_list_[c] = open(c, c, twice);
    }

    // Appends where the new pairs are to their lists, in order.
    void remember(const std::vector<std::uint32_t>& positions, std::uint32_t c, std::size_t length) {
        for (const std::uint32_t at : positions) {
            const Cell left = cells_[at - 1], right = cells_[at + length];
            if (left != c && left_list_[left] != kNone)
                pairs_[left_list_[left]].positions.push_back(
                    static_cast<std::uint32_t>(at - tokens_.length(left)));
            if (right_list_[right] != kNone) pairs_[right_list_[right]].positions.push_back(at);
        }
    }
};

}  // namespace lmlab
