// Words: what stands between white space, with punctuation and contractions cut off. In scripts that
// put no space between words, each letter with its marks is a word.
#pragma once

#include "characters.hpp"

namespace lmlab {

inline bool is_apostrophe(std::uint32_t c) { return c == '\'' || c == 0x2019; }

// Where an English contraction begins in the word, or the word's end: 's 'm 'd 're 've 'll n't.
template <class Unit>
std::uint32_t contraction(const Text<Unit>& text, Span word) {
    const auto lower = [&](std::uint32_t i) { return text[i] < 128 ? text[i] | 32 : text[i]; };
    const std::uint32_t size = word.size(), last = word.end - 1;
    if (size >= 3 && is_apostrophe(text[last - 1])) {
        const std::uint32_t c = lower(last);
        if (c == 's' || c == 'm' || c == 'd') return last - 1;
        if (c == 't' && size >= 4 && lower(last - 2) == 'n') return last - 2;
    }
    if (size >= 4 && is_apostrophe(text[last - 2])) {
        const std::uint32_t a = lower(last - 1), b = lower(last);
        if ((b == 'e' && (a == 'r' || a == 'v')) || (a == 'l' && b == 'l')) return last - 2;
    }
    return word.end;
}

// Whether [begin, end) is an abbreviation without its last full stop, which belongs to it: a.m, D.C
template <class Unit>
bool is_abbreviation(const Text<Unit>& text, Span word) {
    if (word.size() % 2 == 0) return false;
    for (std::uint32_t i = word.begin; i < word.end; ++i)
        if ((i - word.begin) % 2 == 0 ? !is_letter(text[i]) : text[i] != '.') return false;
    return true;
}

// Whether a sign between two characters parts them: well-known, and/or, yes—no, end.Begin, a...b
inline bool parts_words(std::uint32_t before, std::uint32_t sign, std::uint32_t after) {
    if (sign == 0x2014 || sign == 0x2026 || is_unspaced(before) || is_unspaced(after)) return true;
    if (sign == '-' || sign == 0x2013) return is_word_character(before) && is_word_character(after);
    if (sign == '~' || sign == ',') return is_letter(before) && is_letter(after);
    if (sign == '/' || sign == '=' || sign == ':' || sign == '<' || sign == '>')
        return is_word_character(before) && is_letter(after);
    if (sign == '.')
        return before >= 'a' && before <= 'z' && after >= 'A' && after <= 'Z';
    return false;
}

// The words of the text in order; a run of full stops or hyphens is one word, other signs are one
// each.
template <class Unit>
std::vector<Span> split_words(const Text<Unit>& text) {
    std::vector<Span> words;
    words.reserve(text.size / 5 + 1);
    const auto size = static_cast<std::uint32_t>(text.size);
    // one sign at the beginning of [i, end), or a run
    const auto after_sign = [&](std::uint32_t i, std::uint32_t end) {
        std::uint32_t next = i + 1;
        while ((text[i] == '.' || text[i] == '-') && next < end && text[next] == text[i]) ++next;
        return next;
    };
    const auto put_spaced = [&](Span word) {
        if (word.size() == 0) return;
        const std::uint32_t cut = contraction(text, word);
        words.push_back({word.begin, cut});
        if (cut < word.end) words.push_back({cut, word.end});
    };
    const auto put_word = [&](Span word) {
        for (std::uint32_t i = word.begin; sizeof(Unit) > 1 && i < word.end;) {
            if (!is_unspaced(text[i])) {
                ++i;
                continue;
            }
            put_spaced({word.begin, i});
            std::uint32_t next = i + 1;
            while (next < word.end && is_mark(text[next])) ++next;
            words.push_back({i, next});
            word.begin = i = next;
        }
        put_spaced(word);
    };
    for (std::uint32_t i = 0; i < size;) {
        if (is_space(text[i])) {
            ++i;
            continue;
        }
        std::uint32_t end = i;
        while (end < size && !is_space(text[end])) ++end;
        while (i < end && !is_word_character(text[i])) {
            const std::uint32_t next = after_sign(i, end);
            words.push_back({i, next});
            i = next;
        }
        std::uint32_t core = end;  // the end of the word before the signs behind it
        while (core > i && !is_word_character(text[core - 1])) --core;
        if (core > i && core < end && text[core] == '.' && after_sign(core, end) == core + 1 &&
            is_abbreviation(text, {i, core}))
            ++core;
        std::uint32_t begin = i;
        for (std::uint32_t j = i; j + 1 < core; ++j) {
            if (j == begin || is_word_character(text[j])) continue;
            std::uint32_t next = after_sign(j, core);
            if (next == j + 1 && !parts_words(text[j - 1], text[j], text[next])) continue;
            put_word({begin, j});
            words.push_back({j, next});
            begin = next;
            j = next - 1;
        }
        put_word({begin, core});
        for (i = core; i < end;) {
            const std::uint32_t next = after_sign(i, end);
            words.push_back({i, next});
            i = next;
        }
    }
    return words;
}

}  // namespace lmlab
