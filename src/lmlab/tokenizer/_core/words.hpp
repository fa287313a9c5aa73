// The distinct pretokens as one array of cells, ready for merging.
//
// There is a cell per byte. A token is written into the first and the last cell it covers, so that
// from the beginning of a token the next one is its length away and the previous one is read from
// the cell before: merging writes two cells and no word is ever copied or walked. The first cell of
// a token that merged into its left neighbour is made kDead, so a remembered position is checked by
// comparing two cells. Words are sorted by count and those of one count begin in a new block of 16
// cells, so that the weight of a cell is that of its block. Between words there is a border.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "counter.hpp"

namespace lmlab {

// The byte strings of the tokens so far, one after another.
class TokenBytes {
public:
    TokenBytes() {
        for (unsigned byte = 0; byte < 256; ++byte) {
            bytes_.push_back(static_cast<char>(byte));
            begins_.push_back(byte);
            lengths_.push_back(1);
        }
    }

    std::size_t size() const { return lengths_.size(); }
    std::size_t length(std::size_t id) const { return lengths_[id]; }
    std::string_view operator[](std::size_t id) const {
        return {&bytes_[begins_[id]], lengths_[id]};
    }

    void append(std::size_t a, std::size_t b) {
        begins_.push_back(bytes_.size());
        for (std::size_t id : {a, b}) bytes_.append(bytes_, begins_[id], lengths_[id]);
        lengths_.push_back(bytes_.size() - begins_.back());
    }

private:
    std::string bytes_;
    std::vector<std::size_t> begins_, lengths_;
};

template <class Cell>
class Words {
public:
    static constexpr Cell kDead = static_cast<Cell>(-1);

    // `border` is an id that no token has.
    Words(const SharedCounts& counts, std::size_t border) : border_(static_cast<Cell>(border)) {
        lay_out(counts);
    }

    Cell border() const { return border_; }
    std::size_t size() const { return cells_.size(); }
    Cell& operator[](std::size_t at) { return cells_[at]; }
    Cell operator[](std::size_t at) const { return cells_[at]; }
    std::int64_t weight(std::size_t at) const { return weights_[at / kBlock]; }

    // The cells in `parts` pieces of about the same size, cut at borders: their ends.
    std::vector<std::size_t> split(unsigned parts) const {
        std::vector<std::size_t> ends;
        for (unsigned part = 1; part < parts; ++part) {
            std::size_t at = cells_.size() / parts * part;
            while (cells_[at] != border_) ++at;  // the last cell is one
            ends.push_back(at);
        }
        ends.push_back(cells_.size() - 1);
        return ends;
    }

    // visit(position, a, b) for every pair of neighbours from one border up to another, in order.
    template <class Visit>
    void each_pair(std::size_t begin, std::size_t end, const TokenBytes& tokens,
                   Visit visit) const {
        Cell a = border_;
        for (std::size_t at = begin; at < end;) {
            const std::size_t next = at + (a == border_ ? 1 : tokens.length(a));
            const Cell b = cells_[next];
            if (a != border_ && b != border_) visit(at, a, b);
            at = next;
            a = b;
        }
    }

private:
    static constexpr std::size_t kBlock = 16;

    Cell border_;
    std::vector<Cell> cells_;
    std::vector<std::int64_t> weights_;  // of each block of cells

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
        if (total >= UINT32_MAX)
            throw std::length_error(
                "more than 4 GiB of different pretokens; use a pattern that cuts finer");
        cells_.assign(total, border_);
        weights_.assign(total / kBlock, 0);
        const auto place = [&](std::size_t at, const Byte* bytes, std::size_t size,
                               std::uint64_t count) {
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
};

}  // namespace lmlab
