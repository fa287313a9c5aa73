// Learning merges from pretoken counts: always the pair with the highest count, ties to the
// greatest pair of byte strings (Sennrich et al. 2016, on bytes).
//
// The count of a pair is highest when it first appears, in the merge that makes the younger of its
// tokens, and only falls from then on. Two things follow. A heap with stale counts is exact: what
// comes up is pushed back with its true count. And pairs below a threshold can be forgotten until
// nothing above it is left; then all pairs are counted anew for a lower one (an epoch). Most pairs
// are rare, so most are never stored, and what is stored stays small and near. The first epoch
// takes the pairs that cover most of the text; after it there are few enough tokens to count their
// pairs in a square table, and from how fast counts fall so far (about as a power of the number of
// merges) follows a threshold that usually lasts to the end.
#pragma once

#include <cmath>
#include <functional>
#include <utility>

#include "pairs.hpp"
#include "pool.hpp"
#include "words.hpp"

namespace lmlab {

using Merges = std::vector<std::pair<std::uint32_t, std::uint32_t>>;

template <class Cell>
class Trainer {
public:
    // Takes the counts.
    Trainer(std::unique_ptr<SharedCounts> counts, std::size_t num_merges, unsigned threads)
        : num_merges_(num_merges),
          parts_(std::min(threads, kMostParts)),
          words_(*counts, 256 + num_merges) {
        counts.reset();
        const std::size_t ids = 256 + num_merges + 1;  // and the border
        left_.assign(ids, 0);
        right_.assign(ids, 0);
        left_list_.assign(ids, kNone);
        right_list_.assign(ids, kNone);
    }

    // poll(merges done) is called often.
    Merges run(const Poll& poll) {
        while (merges_.size() < num_merges_) {
            if (heap_.empty()) {
                if (threshold_ == 1) break;
                poll(merges_.size());
                start_epoch([&] { poll(merges_.size()); });
                continue;
            }
            const Candidate top = pop();
            const PairTable::Pair& pair = pairs_[top.pair];
            if (pair.count < threshold_) continue;  // forgotten until the next epoch
            if (pair.count < top.count) {
                push(top.pair);
                continue;
            }
            merges_.emplace_back(pair.a, pair.b);
            tokens_.append(pair.a, pair.b);
            merge(top.pair);
            poll(merges_.size());
        }
        return std::move(merges_);
    }

    const TokenBytes& tokens() const { return tokens_; }

private:
    static constexpr std::uint32_t kNone = UINT32_MAX;
    static constexpr std::int64_t kFirstRatio = 64;  // of the highest count to the first threshold
    static constexpr std::size_t kSquare = 1 << 19;  // pairs that are counted in a square table
    static constexpr std::size_t kSketch = 1 << 22;
    static constexpr unsigned kMostParts = 64;  // each has a square table, of up to 8 MiB

    std::size_t num_merges_;
    unsigned parts_;  // of the words, counted in parallel
    TokenBytes tokens_;
    Words<Cell> words_;
    Merges merges_;
    std::int64_t threshold_ = INT64_MAX;
    PairTable pairs_;

    struct Candidate {
        std::int64_t count;
        std::uint32_t pair;
    };
    std::vector<Candidate> heap_;

    // Of the merge at hand, by neighbour: the weight of the pairs that go and come, and the new
    // pair that is to be remembered.
    std::vector<std::int64_t> left_, right_;
    std::vector<std::uint32_t> left_list_, right_list_;
    std::vector<std::uint32_t> lefts_, rights_;

    // Counts all pairs and keeps those of a new, lower threshold.
    void start_epoch(const std::function<void()>& watch) {
        pairs_.clear();
        if (tokens_.size() * tokens_.size() <= kSquare) count_in_square(watch);
        else count_in_sketch();
        for (std::uint32_t i = 0; i < pairs_.size(); ++i)
            if (pairs_[i].count >= threshold_) push(i);
    }

    void lower_threshold(std::int64_t top) {
        if (merges_.empty()) {
            threshold_ = top / kFirstRatio;
        } else {
            const double rest =
                static_cast<double>(merges_.size()) / static_cast<double>(num_merges_);
            const double last = static_cast<double>(threshold_) * std::pow(rest, 1.2);
            threshold_ = static_cast<std::int64_t>(std::min(last, static_cast<double>(top))) / 4;
        }
        threshold_ = std::max<std::int64_t>(threshold_, 1);
    }

    // Each part of the words is counted by itself, and then its part of the positions is filled in,
    // which are so in order.
    void count_in_square(const std::function<void()>& watch) {
        struct Tally {
            std::int64_t weight = 0;
            std::uint32_t places = 0, index = kNone;
        };
        const std::size_t side = tokens_.size();
        std::vector<std::vector<Tally>> tallies(parts_, std::vector<Tally>(side * side));
        const std::vector<std::size_t> ends = words_.split(parts_);
        Pool pool(parts_, watch);
        const auto in_parallel = [&](auto work) {
            for (unsigned part = 0; part < parts_; ++part)
                pool.submit([&, part, work](unsigned) {
                    words_.each_pair(part == 0 ? 0 : ends[part - 1], ends[part], tokens_,
                                     [&](std::size_t at, Cell a, Cell b) {
                                         work(at, tallies[part][a * side + b]);
                                     });
                });
            pool.drain();
        };
        in_parallel([&](std::size_t at, Tally& tally) {
            tally.weight += words_.weight(at);
            ++tally.places;
        });
        std::vector<std::int64_t> weights(side * side, 0);
        for (const auto& tally : tallies)
            for (std::size_t i = 0; i < weights.size(); ++i) weights[i] += tally[i].weight;
        lower_threshold(*std::max_element(weights.begin(), weights.end()));
        for (std::size_t i = 0; i < weights.size(); ++i) {
            if (weights[i] < threshold_) continue;
            const std::uint32_t index =
                pairs_.insert(static_cast<std::uint32_t>(i / side),
                              static_cast<std::uint32_t>(i % side), weights[i]);
            std::uint32_t places = 0;
            for (auto& tally : tallies) {
                tally[i].index = index;
                places += std::exchange(tally[i].places, places);  // now where to write next
            }
            pairs_[index].positions.resize(places);
        }
        in_parallel([&](std::size_t at, Tally& tally) {
            if (tally.index != kNone)
                pairs_[tally.index].positions[tally.places++] = static_cast<std::uint32_t>(at);
        });
    }

    // With more tokens there are too many pairs for a table. Pairs that share a slot are first
    // counted together, and only those whose slot reaches the threshold one by one.
    void count_in_sketch() {
        std::vector<std::int64_t> sketch(kSketch, 0);
        const auto slot = [&](std::uint64_t a, std::uint64_t b) -> std::int64_t& {
            return sketch[PairTable::hash(a, b) & (kSketch - 1)];
        };
        const auto each_pair = [&](auto visit) {
            words_.each_pair(0, words_.size() - 1, tokens_, visit);
        };
        each_pair([&](std::size_t at, Cell a, Cell b) { slot(a, b) += words_.weight(at); });
        lower_threshold(*std::max_element(sketch.begin(), sketch.end()));
        each_pair([&](std::size_t at, Cell a, Cell b) {
            if (slot(a, b) < threshold_) return;
            PairTable::Pair* pair = pairs_.find(a, b);
            if (pair == nullptr) pair = &pairs_[pairs_.insert(a, b, 0)];
            pair->count += words_.weight(at);
            pair->positions.push_back(static_cast<std::uint32_t>(at));
        });
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
        std::push_heap(heap_.begin(), heap_.end(),
                       [this](auto& x, auto& y) { return worse(x, y); });
    }

    Candidate pop() {
        std::pop_heap(heap_.begin(), heap_.end(), [this](auto& x, auto& y) { return worse(x, y); });
        const Candidate top = heap_.back();
        heap_.pop_back();
        return top;
    }

    void merge(std::uint32_t best) {
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
            if (words_[at] != a || words_[at + length_a] != b) continue;
            const std::size_t after = at + length_a + length_b;
            const Cell left = words_[at - 1], right = words_[after];
            const std::int64_t w = words_.weight(at);
            words_[at + length_a] = Words<Cell>::kDead;
            words_[at] = static_cast<Cell>(c);
            words_[after - 1] = static_cast<Cell>(c);
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
        settle(a, b, c, twice);
        remember(positions, c, length_a + length_b);
        for (const std::uint32_t left : lefts_) left_list_[left] = kNone;
        for (const std::uint32_t right : rights_) right_list_[right] = kNone;
        left_list_[c] = right_list_[c] = kNone;
    }

    // Takes what the merge changed into the counts and opens the new pairs.
    void settle(std::uint32_t a, std::uint32_t b, std::uint32_t c, std::int64_t twice) {
        const auto lower = [&](std::uint32_t x, std::uint32_t y, std::int64_t w) {
            if (PairTable::Pair* pair = pairs_.find(x, y)) pair->count -= w;
        };
        const auto open = [&](std::uint32_t x, std::uint32_t y, std::int64_t w) {
            if (w < threshold_) return kNone;
            const std::uint32_t index = pairs_.insert(x, y, w);
            push(index);
            return index;
        };
        for (const std::uint32_t left : lefts_) {
            const std::int64_t w = std::exchange(left_[left], 0);
            if (left == words_.border()) continue;
            lower(left, a, w);
            left_list_[left] = open(left, c, w);
        }
        for (const std::uint32_t right : rights_) {
            const std::int64_t w = std::exchange(right_[right], 0);
            if (right == words_.border()) continue;
            lower(b, right, w);
            right_list_[right] = open(c, right, right == a ? w - twice : w);
        }
        right_list_[c] = open(c, c, twice);
    }

    // Appends where the new pairs are to their lists, in order.
    void remember(const std::vector<std::uint32_t>& positions, std::uint32_t c,
                  std::size_t length) {
        for (const std::uint32_t at : positions) {
            const Cell left = words_[at - 1], right = words_[at + length];
            if (left != c && left_list_[left] != kNone)
                pairs_[left_list_[left]].positions.push_back(
                    static_cast<std::uint32_t>(at - tokens_.length(left)));
            if (right_list_[right] != kNone) pairs_[right_list_[right]].positions.push_back(at);
        }
    }
};

}  // namespace lmlab
