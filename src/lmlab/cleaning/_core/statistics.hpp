// The scores of one text; lmlab/cleaning/native.py describes them.
#pragma once

#include <limits>
#include <string>
#include <unordered_set>

#include "repetition.hpp"

namespace lmlab {

inline double ratio(double part, double whole) { return whole == 0 ? 0.0 : part / whole; }

struct GopherScores {
    double words, mean_word_length, hash_ratio, ellipsis_ratio, bullet_lines, ellipsis_lines,
        alphabetic_words, stop_words;
};

struct FineWebScores {
    double lines, punctuated_lines, short_lines, duplicate_line_characters, newline_ratio;
};

struct RepetitionScores {
    double characters, duplicate_paragraphs, duplicate_paragraph_characters, duplicate_lines,
        duplicate_line_characters;
    std::vector<double> top_ngrams, duplicate_ngrams;
};

template <class Unit>
bool ends_in_ellipsis(const Text<Unit>& text, Span line) {
    const Span part = stripped(text, line);
    if (part.size() == 0) return false;
    const std::uint32_t last = part.end - 1;
    return text[last] == 0x2026 ||
           (part.size() >= 3 && text[last] == '.' && text[last - 1] == '.' &&
            text[last - 2] == '.');
}

template <class Unit>
bool begins_with_bullet(const Text<Unit>& text, Span line) {
    const Span part = stripped(text, line);
    return part.size() != 0 && (text[part.begin] == 0x2022 || text[part.begin] == '-');
}

// Scores by words and lines. `punctuation`: what a word of signs consists of; `terminal`: what ends
// a sentence.
class Statistics {
public:
    Statistics(const nb::str& punctuation, const nb::str& terminal,
               const std::vector<nb::str>& stop_words)
        : punctuation_(punctuation), terminal_(terminal) {
        for (const nb::str& word : stop_words)
            with_text(word, [this](auto text) { stop_words_.insert(wide(text, all(text))); });
        for (const auto& word : stop_words_) longest_ = std::max(longest_, word.size());
    }

    template <class Unit>
    GopherScores gopher(const Text<Unit>& text) const {
        const Spans words = split_words(text);
        std::size_t plain = 0, unspaced = 0, characters = 0, alphabetic = 0;
        std::unordered_set<std::u32string> seen;
        for (const Span word : words) {
            bool signs = true, letters = false;
            for (std::uint32_t i = word.begin; i < word.end; ++i) {
                signs = signs && punctuation_.has(text[i]);
                letters = letters || is_letter(text[i]);
            }
            if (is_unspaced(text[word.begin]))
                ++plain, ++unspaced;
            else if (!signs)
                ++plain, characters += word.size();
            if (letters) ++alphabetic;
            if (word.size() > longest_ || seen.size() == stop_words_.size()) continue;
            if (auto found = stop_words_.find(wide(text, word)); found != stop_words_.end())
                seen.insert(*found);
        }
        std::size_t hashes = 0, ellipses = 0;
        for (std::size_t i = 0; i < text.size; ++i) {
            if (text[i] == '#') ++hashes;
            if (text[i] == 0x2026) ++ellipses;
            if (text[i] == '.' && i + 2 < text.size && text[i + 1] == '.' && text[i + 2] == '.')
                ++ellipses, i += 2;
        }
        const Spans lines = split_lines(text);
        std::size_t bullets = 0, endings = 0;
        for (const Span line : lines) {
            bullets += begins_with_bullet(text, line);
            endings += ends_in_ellipsis(text, line);
        }
        const auto count = static_cast<double>(words.size());
        const auto line_count = static_cast<double>(lines.size());
        // Of a text that is mostly in a script without spaces, words have no length.
        const double length =
            2 * unspaced > plain
                ? std::numeric_limits<double>::quiet_NaN()
                : ratio(static_cast<double>(characters), static_cast<double>(plain - unspaced));
        return {static_cast<double>(plain), length,
                ratio(static_cast<double>(hashes), count),
                ratio(static_cast<double>(ellipses), count),
                ratio(static_cast<double>(bullets), line_count),
                ratio(static_cast<double>(endings), line_count),
                ratio(static_cast<double>(alphabetic), count),
                static_cast<double>(seen.size())};
    }

    template <class Unit>
    FineWebScores fineweb(const Text<Unit>& text, std::size_t short_length) const {
        Spans lines;
        std::size_t punctuated = 0, short_lines = 0, line_feeds = 0;
        for (std::size_t i = 0; i < text.size; ++i) line_feeds += text[i] == '\n';
        for (const Span line : split_at_line_feeds(text, all(text), 1)) {
            if (stripped(text, line).size() == 0) continue;
            lines.push_back(line);
            punctuated += terminal_.has(text[line.end - 1]);
            short_lines += line.size() <= short_length;
        }
        const PrefixHashes hashes = hashes_of(text);
        const auto duplicates = find_duplicates(text, hashes, lines).characters;
        const auto count = static_cast<double>(lines.size());
        return {count, ratio(static_cast<double>(punctuated), count),
                ratio(static_cast<double>(short_lines), count),
                ratio(static_cast<double>(duplicates), static_cast<double>(text.size - line_feeds)),
                ratio(static_cast<double>(line_feeds),
                      static_cast<double>(split_words(text).size()))};
    }

    // Sentences end at words that are one terminal sign; signs behind it still belong to them.
    template <class Unit>
    std::size_t sentences(const Text<Unit>& text) const {
        std::size_t count = 0;
        bool ended = true;
        for (const Span word : split_words(text)) {
            const bool terminal = word.size() == 1 && terminal_.has(text[word.begin]);
            bool signs = true;
            for (std::uint32_t i = word.begin; i < word.end; ++i)
                signs = signs && !is_word_character(text[i]);
            if (count == 0 || (ended && !signs)) ++count, ended = false;
            if (terminal) ended = true;
        }
        return count;
    }

private:
    CharacterSet punctuation_, terminal_;
    std::unordered_set<std::u32string> stop_words_;
    std::size_t longest_ = 0;

    template <class Unit>
    static Span all(const Text<Unit>& text) {
        return {0, static_cast<std::uint32_t>(text.size)};
    }
    template <class Unit>
    static std::u32string wide(const Text<Unit>& text, Span part) {
        return {text.data + part.begin, text.data + part.end};
    }
};

template <class Unit>
Spans paragraphs_of(const Text<Unit>& text) {
    return split_at_line_feeds(text, stripped(text, {0, static_cast<std::uint32_t>(text.size)}), 2);
}

template <class Unit>
Spans lines_of(const Text<Unit>& text) {
    return split_at_line_feeds(text, {0, static_cast<std::uint32_t>(text.size)}, 1);
}

template <class Unit>
RepetitionScores repetition(const Text<Unit>& text, const std::vector<std::size_t>& top,
                            const std::vector<std::size_t>& duplicate) {
    const auto size = static_cast<double>(text.size);
    RepetitionScores scores{size, 0, 0, 0, 0, {}, {}};
    {  // each part lets its hashes go, which take eight bytes a character
        const PrefixHashes hashes = hashes_of(text);
        const Spans paragraphs = paragraphs_of(text), lines = lines_of(text);
        const Duplicates by_paragraph = find_duplicates(text, hashes, paragraphs);
        const Duplicates by_line = find_duplicates(text, hashes, lines);
        const auto share = [](std::uint64_t part, double whole) {
            return ratio(static_cast<double>(part), whole);
        };
        scores.duplicate_paragraphs =
            share(by_paragraph.elements, static_cast<double>(paragraphs.size()));
        scores.duplicate_paragraph_characters = share(by_paragraph.characters, size);
        scores.duplicate_lines = share(by_line.elements, static_cast<double>(lines.size()));
        scores.duplicate_line_characters = share(by_line.characters, size);
    }
    const Spans words = split_words(text);
    if (!top.empty()) {
        Ngrams<Unit> ngrams(text, words, true);
        for (const std::size_t n : top)
            scores.top_ngrams.push_back(ratio(static_cast<double>(ngrams.top(n)), size));
    }
    if (!duplicate.empty()) {
        Ngrams<Unit> ngrams(text, words, false);
        for (const std::size_t n : duplicate)
            scores.duplicate_ngrams.push_back(
                ratio(static_cast<double>(ngrams.duplicates(n)), size));
    }
    return scores;
}

}  // namespace lmlab
