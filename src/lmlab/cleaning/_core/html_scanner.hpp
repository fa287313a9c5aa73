// HTML as a stream of tags and text, in one pass over UTF-8 bytes; malformed input is read as
// browsers read it wherever that does not need a tree.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <unordered_map>

namespace lmlab {

using EntityTable = std::unordered_map<std::string, std::string>;  // name with ; -> UTF-8

inline bool html_space(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f';
}
inline bool ascii_letter(char c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }
inline bool ascii_digit(char c) { return c >= '0' && c <= '9'; }
inline char ascii_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 32) : c; }

inline void put_utf8(std::string& out, std::uint32_t code) {
    if (code == 0 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) code = 0xFFFD;
    const auto put = [&](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (code < 0x80) return put(code);
    if (code < 0x800) {
        put(0xC0 | code >> 6);
    } else {
        if (code < 0x10000) {
            put(0xE0 | code >> 12);
        } else {
            put(0xF0 | code >> 18);
            put(0x80 | (code >> 12 & 63));
        }
        put(0x80 | (code >> 6 & 63));
    }
    put(0x80 | (code & 63));
}

struct Tag {
    char name[16];  // lower case; longer names are cut
    std::uint8_t name_size = 0;
    bool closing = false, hidden = false;
    std::string_view classes, id, role, itemprop;

    std::string_view view() const { return {name, name_size}; }
};

class HtmlScanner {
public:
    enum class Token { kEnd, kText, kTag };

    HtmlScanner(std::string_view html, const EntityTable& entities)
        : p_(html.data()), end_(html.data() + html.size()), entities_(entities) {}

    // The next token is in `text` or `tag`; text still has its entities.
    Token next() {
        while (p_ < end_) {
            const char* start = p_;
            if (*p_ != '<' || !opens_markup()) {
                // a text goes on to the next < that opens something
                do {
                    ++p_;
                    p_ = static_cast<const char*>(std::memchr(p_, '<', end_ - p_));
                    if (p_ == nullptr) p_ = end_;
                } while (p_ < end_ && !opens_markup());
                text = {start, static_cast<std::size_t>(p_ - start)};
                return Token::kText;
            }
            if (p_[1] == '!' || p_[1] == '?') {
                skip_declaration();
            } else if (read_tag()) {
                return Token::kTag;
            }
        }
        return Token::kEnd;
    }

    // Pass over everything up to the end tag of an element whose content is no markup.
    void skip_raw(std::string_view name) {
        while (p_ < end_) {
            p_ = static_cast<const char*>(std::memchr(p_, '<', end_ - p_));
            if (p_ == nullptr) break;
            if (static_cast<std::size_t>(end_ - p_) > name.size() + 1 && p_[1] == '/' &&
                matches(p_ + 2, name))
                return;
            ++p_;
        }
        p_ = end_;
    }

    // Append text with its entities decoded.
    void decode(std::string_view source, std::string& out) const {
        const char* p = source.data();
        const char* const end = p + source.size();
        while (p < end) {
            const char* amp = static_cast<const char*>(std::memchr(p, '&', end - p));
            if (amp == nullptr) amp = end;
            out.append(p, amp);
            p = amp;
            if (p < end) p = decode_entity(p, end, out);
        }
    }

    std::string_view text;
    Tag tag;

private:
    const char* p_;
    const char* const end_;
    const EntityTable& entities_;

    bool opens_markup() const {
        if (end_ - p_ < 2) return false;
        const char c = p_[1];
        return ascii_letter(c) || c == '!' || c == '?' ||
               (c == '/' && end_ - p_ > 2 && ascii_letter(p_[2]));
    }
    static bool matches(const char* p, std::string_view name) {
        for (std::size_t i = 0; i < name.size(); ++i)
            if (ascii_lower(p[i]) != name[i]) return false;
        return true;
    }
    void skip_declaration() {
        const std::string_view rest(p_, static_cast<std::size_t>(end_ - p_));
        std::size_t found;
        if (rest.substr(0, 4) == "<!--") {
            found = rest.find("-->", 2);
            p_ = found == rest.npos ? end_ : p_ + found + 3;
        } else {
            found = rest.find('>');
            p_ = found == rest.npos ? end_ : p_ + found + 1;
        }
    }
    // Read from < to >; false when the input ends before.
    bool read_tag() {
        tag = Tag{};
        const char* p = p_ + 1;
        if (*p == '/') tag.closing = true, ++p;
        for (; p < end_ && !html_space(*p) && *p != '>' && *p != '/'; ++p)
            if (tag.name_size < sizeof tag.name) tag.name[tag.name_size++] = ascii_lower(*p);
        while (p < end_ && *p != '>') {
            if (html_space(*p) || *p == '/') {
                ++p;
            } else {
                p = read_attribute(p);
            }
        }
        p_ = p < end_ ? p + 1 : end_;
        return p < end_;
    }
    const char* read_attribute(const char* p) {
        const char* start = p;
        while (p < end_ && !html_space(*p) && *p != '>' && *p != '/' && (*p != '=' || p == start))
            ++p;
        const std::string_view name(start, static_cast<std::size_t>(p - start));
        while (p < end_ && html_space(*p)) ++p;
        std::string_view value;
        if (p < end_ && *p == '=') {
            ++p;
            while (p < end_ && html_space(*p)) ++p;
            if (p < end_ && (*p == '"' || *p == '\'')) {
                const char* close =
                    static_cast<const char*>(std::memchr(p + 1, *p, end_ - p - 1));
                if (close == nullptr) return end_;
                value = {p + 1, static_cast<std::size_t>(close - p - 1)};
                p = close + 1;
            } else {
                start = p;
                while (p < end_ && !html_space(*p) && *p != '>') ++p;
                value = {start, static_cast<std::size_t>(p - start)};
            }
        }
        keep(name, value);
        return p;
    }
    void keep(std::string_view name, std::string_view value) {
        if (tag.closing) return;
        const auto is = [&](std::string_view wanted) {
            return name.size() == wanted.size() && matches(name.data(), wanted);
        };
        if (is("class")) tag.classes = value;
        if (is("id")) tag.id = value;
        if (is("role")) tag.role = value;
        if (is("itemprop")) tag.itemprop = value;
        if (is("hidden") || (is("aria-hidden") && value == "true")) tag.hidden = true;
        if (is("style")) {
            std::size_t at = value.find("display:");
            if (at != value.npos) {
                at += 8;
                while (at < value.size() && value[at] == ' ') ++at;
                tag.hidden = tag.hidden || value.substr(at, 4) == "none";
            }
        }
    }
    // Decode the entity at p, or append the & itself; return what follows it.
    const char* decode_entity(const char* p, const char* end, std::string& out) const {
        if (end - p > 2 && p[1] == '#') {
            const bool hex = (p[2] | 32) == 'x';
            const char* q = p + (hex ? 3 : 2);
            const char* const digits = q;
            std::uint32_t code = 0;
            for (; q < end && q - digits < 8; ++q) {
                const char c = ascii_lower(*q);
                if (ascii_digit(c)) {
                    code = code * (hex ? 16 : 10) + static_cast<std::uint32_t>(c - '0');
                } else if (hex && c >= 'a' && c <= 'f') {
                    code = code * 16 + static_cast<std::uint32_t>(c - 'a' + 10);
                } else {
                    break;
                }
            }
            if (q > digits) {
                put_utf8(out, code);
                return q < end && *q == ';' ? q + 1 : q;
            }
        } else {
            const char* q = p + 1;
            while (q < end && q - p < 32 && (ascii_letter(*q) || ascii_digit(*q))) ++q;
            if (q < end && *q == ';') {
                if (const auto found = entities_.find(std::string(p + 1, q + 1));
                    found != entities_.end()) {
                    out += found->second;
                    return q + 1;
                }
            }
        }
        out.push_back('&');
        return p + 1;
    }
};

}  // namespace lmlab
