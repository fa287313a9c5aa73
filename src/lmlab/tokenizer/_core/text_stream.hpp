// A text that arrives in pieces, given out in chunks that can be worked on separately.
//
// Raw bytes are appended, checked (or repaired) once, and cut at a border (see is_border) so that
// chunks go to any thread in any order. Where no border is near, as in a million digits, the
// reader finds by scanning how far the text is certain, and the chunk carries what follows as mere
// context. Memory is that of a chunk and of the longest pretoken.
#pragma once

#include <functional>

#include "segment.hpp"

namespace lmlab {

struct Chunk {
    std::vector<Byte> bytes;
    bool final;  // false: only the part that the rest cannot change belongs to the chunk
};

class TextStream {
public:
    using Emit = std::function<void(Chunk)>;

    TextStream(Pattern pattern, const Specials& specials, std::size_t chunk_bytes, bool replace,
               Emit emit)
        : pattern_(pattern),
          specials_(specials),
          chunk_bytes_(std::max<std::size_t>(chunk_bytes, 1)),
          replace_(replace),
          emit_(std::move(emit)) {}

    void append(const Byte* p, std::size_t size) {
        // Pieces of any size cost the same; a long one is not copied as a whole.
        while (size > 0) {
            const std::size_t part = std::min(size, chunk_bytes_);
            append_part(p, part);
            p += part;
            size -= part;
            while (valid_ >= next_try_) {
                if (!emit_some()) break;
            }
        }
    }

    // The text is complete.
    void end_text() {
        if (replace_) {
            append_replaced(text_, raw_.data(), raw_.data() + raw_.size(), true);
            raw_.clear();
            valid_ = text_.size();
        } else if (valid_ < text_.size()) {
            throw InvalidUtf8(offset_ - (text_.size() - valid_));
        }
        if (!text_.empty()) emit_(Chunk{std::move(text_), true});
        text_ = {};
        valid_ = 0;
        offset_ = 0;
        next_try_ = chunk_bytes_;
    }

private:
    // Finds where a text stops being certain without doing anything with it.
    struct Nothing {
        void pretokens(const Byte*, const Byte* const*, std::size_t) {}
        void special(const Special&) {}
    };

    Pattern pattern_;
    const Specials& specials_;
    std::size_t chunk_bytes_;
    bool replace_;
    Emit emit_;
    std::vector<Byte> text_;  // [0, valid_) is known to be UTF-8
    std::vector<Byte> raw_;   // with replace_: a sequence that the last piece has cut
    std::size_t valid_ = 0;
    std::uint64_t offset_ = 0;  // bytes of the current text so far
    std::size_t next_try_ = chunk_bytes_;

    void append_part(const Byte* p, std::size_t size) {
        offset_ += size;
        if (replace_) {
            raw_.insert(raw_.end(), p, p + size);
            const Byte* done =
                append_replaced(text_, raw_.data(), raw_.data() + raw_.size(), false);
            raw_.erase(raw_.begin(), raw_.begin() + (done - raw_.data()));
            valid_ = text_.size();
            return;
        }
        text_.insert(text_.end(), p, p + size);
        const Byte* end = text_.data() + text_.size();
        const Byte* stop = skip_valid(text_.data() + valid_, end);
        valid_ = static_cast<std::size_t>(stop - text_.data());
        if (stop < end && !check_sequence(stop, end).cut)
            throw InvalidUtf8(offset_ - (text_.size() - valid_));
    }

    // Emits one chunk if there is a place to cut; otherwise waits until the text has doubled.
    bool emit_some() {
        const Byte* begin = text_.data();
        const Byte* end = begin + valid_;
        const Byte* cut = last_border(begin, end, end, specials_);
        const bool final = cut != begin;
        if (!final) {
            Nothing nothing;
            cut = segment(pattern_, begin, end, false, specials_, nothing);
            if (cut == begin) {
                next_try_ = 2 * valid_;
                return false;
            }
        }
        std::vector<Byte> rest;
        rest.reserve(chunk_bytes_ + chunk_bytes_ / 2);
        rest.assign(cut, begin + text_.size());
        const std::size_t cut_bytes = static_cast<std::size_t>(cut - begin);
        text_.resize(final ? cut_bytes : valid_);
        std::swap(text_, rest);
        emit_(Chunk{std::move(rest), final});
        valid_ -= cut_bytes;
        // What remains may hold no border at all, so look again only after new text.
        next_try_ = std::max(chunk_bytes_, 2 * valid_);
        return valid_ >= next_try_;
    }
};

}  // namespace lmlab
