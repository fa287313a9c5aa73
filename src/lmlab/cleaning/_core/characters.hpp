// Characters of Python strings: read in place, classified as Python classifies them.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "../../tokenizer/_core/unicode_tables.hpp"

namespace nb = nanobind;

namespace lmlab {

inline constexpr std::size_t kMostCharacters = std::size_t{1} << 31;

// A part of a text as positions of its characters.
struct Span {
    std::uint32_t begin, end;
    std::uint32_t size() const { return end - begin; }
};

template <class Unit>
struct Text {
    const Unit* data;
    std::size_t size;

    std::uint32_t operator[](std::size_t i) const { return data[i]; }
};

inline bool is_space(std::uint32_t c) {
    return c < 128 ? c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31)
                   : Py_UNICODE_ISSPACE(c) != 0;
}
inline bool is_letter(std::uint32_t c) {
    return c < 128 ? (c | 32) >= 'a' && (c | 32) <= 'z' : Py_UNICODE_ISALPHA(c) != 0;
}
inline bool is_mark(std::uint32_t c) {
    return c >= 128 && kUnicodeClass[128u * kUnicodeBlock[c >> 7] + (c & 127)] == kMark;
}
inline bool is_word_character(std::uint32_t c) {
    return c < 128 ? is_letter(c) || (c >= '0' && c <= '9')
                   : Py_UNICODE_ISALNUM(c) != 0 || is_mark(c);
}
// A letter of a script that puts no space between words: Thai to Burmese, Khmer, kana, ideographs.
inline bool is_unspaced(std::uint32_t c) {
    if (c < 0x0e00) return false;
    return (c < 0x10a0 || (c >= 0x1780 && c < 0x17e0) || (c >= 0x3005 && c < 0x3130) ||
            (c >= 0x31f0 && c < 0x3200) || (c >= 0x3400 && c < 0xa000) ||
            (c >= 0xf900 && c < 0xfb00) || (c >= 0xff66 && c < 0xffa0) ||
            (c >= 0x20000 && c < 0x40000)) &&
           is_letter(c);
}
// Where `str.splitlines` cuts.
inline bool is_line_break(std::uint32_t c) {
    return c < 128 ? (c >= 10 && c <= 13) || (c >= 28 && c <= 30)
                   : c == 0x85 || c == 0x2028 || c == 0x2029;
}

// Call `work` with the text in the width that Python keeps it in.
template <class Work>
auto with_text(const nb::str& string, Work&& work) {
    PyObject* object = string.ptr();
    const auto size = static_cast<std::size_t>(PyUnicode_GET_LENGTH(object));
    if (size >= kMostCharacters) throw std::length_error("a text has 2^31 characters or more");
    switch (PyUnicode_KIND(object)) {
        case PyUnicode_1BYTE_KIND: return work(Text<Py_UCS1>{PyUnicode_1BYTE_DATA(object), size});
        case PyUnicode_2BYTE_KIND: return work(Text<Py_UCS2>{PyUnicode_2BYTE_DATA(object), size});
        default: return work(Text<Py_UCS4>{PyUnicode_4BYTE_DATA(object), size});
    }
}

// A set of characters, by bits.
class CharacterSet {
public:
    explicit CharacterSet(const nb::str& members) : bits_(0x110000 / 64) {
        with_text(members, [this](auto text) {
            for (std::size_t i = 0; i < text.size; ++i)
                bits_[text[i] / 64] |= std::uint64_t{1} << (text[i] % 64);
        });
    }
    bool has(std::uint32_t c) const { return (bits_[c / 64] >> (c % 64)) & 1; }

private:
    std::vector<std::uint64_t> bits_;
};

// The part without white space at its ends.
template <class Unit>
Span stripped(const Text<Unit>& text, Span part) {
    while (part.begin < part.end && is_space(text[part.begin])) ++part.begin;
    while (part.begin < part.end && is_space(text[part.end - 1])) --part.end;
    return part;
}

// The lines of `str.splitlines`.
template <class Unit>
std::vector<Span> split_lines(const Text<Unit>& text) {
    std::vector<Span> lines;
    std::uint32_t begin = 0;
    const auto size = static_cast<std::uint32_t>(text.size);
    for (std::uint32_t i = 0; i < size; ++i) {
        if (!is_line_break(text[i])) continue;
        lines.push_back({begin, i});
        if (text[i] == '\r' && i + 1 < size && text[i + 1] == '\n') ++i;
        begin = i + 1;
    }
    if (begin < size) lines.push_back({begin, size});
    return lines;
}

// The parts between runs of at least `least` line feeds, as `re.split("\n{least,}")` cuts them.
template <class Unit>
std::vector<Span> split_at_line_feeds(const Text<Unit>& text, Span part, std::uint32_t least) {
    std::vector<Span> parts;
    std::uint32_t begin = part.begin;
    for (std::uint32_t i = part.begin; i < part.end;) {
        if (text[i] != '\n') {
            ++i;
            continue;
        }
        const std::uint32_t run = i;
        while (i < part.end && text[i] == '\n') ++i;
        if (i - run < least) continue;
        parts.push_back({begin, run});
        begin = i;
    }
    parts.push_back({begin, part.end});
    return parts;
}

}  // namespace lmlab
