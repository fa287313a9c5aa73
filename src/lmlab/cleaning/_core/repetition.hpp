// Repeated lines, paragraphs and n-grams of words (Rae et al. 2021, table A1).
#pragma once

#include "substrings.hpp"
#include "words.hpp"

namespace lmlab {

using Spans = std::vector<Span>;

struct Duplicates {
    std::uint64_t elements = 0;
    std::uint64_t characters = 0;
};

// The elements that equal an earlier one; where they are goes to `found`.
template <class Unit>
Duplicates find_duplicates(const Text<Unit>& text, const PrefixHashes& hashes, const Spans& parts,
                           Spans* found = nullptr) {
    SubstringCounts<Unit> counts(text.data, hashes);
    counts.reset(parts.size());
    Duplicates duplicates;
    for (const Span part : parts) {
        if (counts.add(part).count == 1) continue;
        ++duplicates.elements;
        duplicates.characters += part.size();
        if (found != nullptr && part.size() != 0) found->push_back(part);
    }
    return duplicates;
}

template <class Unit>
PrefixHashes hashes_of(const Text<Unit>& text) {
    PrefixHashes hashes;
    for (std::size_t i = 0; i < text.size; ++i) hashes.push(text[i]);
    return hashes;
}

// The words one after the other in one buffer, with a separator or none: an n-gram is a substring.
// Where most words are letters of scripts without spaces, an n-gram has 2n letters and no separator:
// words of Chinese and Japanese have about two.
template <class Unit>
class Ngrams {
public:
    Ngrams(const Text<Unit>& text, const Spans& words, bool separated) : words_(words) {
        std::size_t unspaced = 0;
        for (const Span word : words) unspaced += is_unspaced(text[word.begin]);
        if (2 * unspaced > words.size()) scale_ = 2, separated = false;
        places_.reserve(words.size());
        buffer_.reserve(text.size);
        for (const Span word : words) {
            if (separated && !buffer_.empty()) put(Unit{' '});
            const auto begin = static_cast<std::uint32_t>(buffer_.size());
            for (std::uint32_t i = word.begin; i < word.end; ++i) put(text.data[i]);
            places_.push_back({begin, static_cast<std::uint32_t>(buffer_.size())});
        }
    }
    Ngrams(const Ngrams&) = delete;
    Ngrams& operator=(const Ngrams&) = delete;

    // Characters of the most frequent n-gram, all its occurrences together; the one that occurs
    // first wins where several are as frequent. Its place is put into `top`.
    std::uint64_t top(std::size_t n, Span* top = nullptr) {
        n *= scale_;
        if (words_.size() < n) return 0;
        SubstringCounts<Unit> counts(buffer_.data(), hashes_);
        counts.reset(words_.size());
        typename SubstringCounts<Unit>::Entry best{0, {0, 0}, 0};
        for (std::size_t i = 0; i + n <= words_.size(); ++i) {
            const auto& entry = counts.add(part(i, n));
            if (entry.count > best.count ||
                (entry.count == best.count && entry.first.begin < best.first.begin))
                best = entry;
        }
        if (top != nullptr) *top = best.first;
        return std::uint64_t{best.first.size()} * best.count;
    }
    // Characters of n-grams that occurred before, none counted twice.
    std::uint64_t duplicates(std::size_t n, Spans* found = nullptr) {
        n *= scale_;
        if (words_.size() < n) return 0;
        SubstringCounts<Unit> counts(buffer_.data(), hashes_);
        counts.reset(words_.size());
        std::uint64_t characters = 0;
        for (std::size_t i = 0; i + n <= words_.size();) {
            const Span ngram = part(i, n);
            if (counts.contains(ngram)) {
                characters += ngram.size();
                if (found != nullptr) found->push_back(source(i, n));
                i += n;
            } else {
                counts.add(ngram);
                ++i;
            }
        }
        return characters;
    }
    // Where the text has the n-gram that stands at `place` in the buffer.
    Spans occurrences(std::size_t n, Span place) const {
        n *= scale_;
        Spans found;
        for (std::size_t i = 0; i + n <= words_.size(); ++i) {
            const Span here = part(i, n);
            const Unit* data = buffer_.data();
            if (here.size() == place.size() &&
                std::equal(data + here.begin, data + here.end, data + place.begin))
                found.push_back(source(i, n));
        }
        return found;
    }

private:
    const Spans& words_;
    std::size_t scale_ = 1;
    std::vector<Unit> buffer_;
    PrefixHashes hashes_;
    Spans places_;

    Span part(std::size_t i, std::size_t n) const {
        return {places_[i].begin, places_[i + n - 1].end};
    }
    Span source(std::size_t i, std::size_t n) const {
        return {words_[i].begin, words_[i + n - 1].end};
    }
    void put(Unit c) {
        buffer_.push_back(c);
        hashes_.push(c);
    }
};

}  // namespace lmlab
