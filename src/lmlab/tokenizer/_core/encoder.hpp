// Encoding text: pretokens looked up in a cache, the rest merged.
//
// Nine of ten pretokens were seen a moment ago, so each thread keeps a cache of pretokens and their
// ids (cache.hpp). A batch of pretokens is looked up in two rounds: all keys are made and their
// places fetched into the processor's cache, then they are read. A hit copies a whole entry's ids
// to the output and advances by as many as count: no loop, no branch on their number. What misses
// is merged together with the next ones that will miss (bpe.hpp).
#pragma once

#include <memory>
#include <mutex>

#include "bpe.hpp"
#include "cache.hpp"
#include "id_buffer.hpp"
#include "segment.hpp"

namespace lmlab {

class Encoder {
public:
    Encoder(std::vector<std::string> vocab,
            const std::vector<std::pair<std::string, std::string>>* merges,
            std::vector<Special> specials, const std::vector<std::uint32_t>& hidden,
            Pattern pattern, bool ignore_merges)
        : bpe(std::move(vocab), merges, hidden, ignore_merges),
          specials(std::move(specials)),
          pattern(pattern),
          id_bytes(bpe.vocab().size() <= 65536 ? 2 : 4) {}

    using Words = Cache<2, 16>;
    using LongWords = Cache<6, 80>;
    static_assert(LongWords::kLongest <= Lane::kLongest);

    // What one thread works with; its caches stay warm from one text to the next.
    struct Scratch {
        Words words{1 << 18};
        LongWords long_words{1 << 16};
        Bpe::Workspace work;
    };

    std::unique_ptr<Scratch> borrow() {
        const std::lock_guard lock(mutex_);
        if (scratch_.empty()) return std::make_unique<Scratch>();
        std::unique_ptr<Scratch> one = std::move(scratch_.back());
        scratch_.pop_back();
        return one;
    }
    void give_back(std::unique_ptr<Scratch> one) {
        const std::lock_guard lock(mutex_);
        scratch_.push_back(std::move(one));
    }

    // The special tokens to look for: all of them, or none where the text is only text.
    const Specials& looked_for(bool parse) const { return parse ? specials : none_; }

    // Append the ids of [p, end); see segment() for `final` and the result.
    const Byte* encode(const Byte* p, const Byte* end, bool final, bool parse, IdBuffer& out,
                       Scratch& scratch) const {
        return id_bytes == 2 ? encode_as<std::uint16_t>(p, end, final, parse, out, scratch)
                             : encode_as<std::uint32_t>(p, end, final, parse, out, scratch);
    }

    // Append the ids of one pretoken.
    void encode_pretoken(const Byte* p, std::size_t size, IdBuffer& out, Scratch& scratch) const {
        if (size == 0) return;
        out.reserve((size + kSlack) * id_bytes);
        const Byte* end = p + size;
        if (id_bytes == 2) Writer<std::uint16_t>(*this, scratch, out, end).pretokens(p, &end, 1);
        else Writer<std::uint32_t>(*this, scratch, out, end).pretokens(p, &end, 1);
    }

    const Bpe bpe;
    const Specials specials;
    const Pattern pattern;
    const std::size_t id_bytes;

private:
    static constexpr std::size_t kSlack = LongWords::kCopied / 2;  // a hit copies a whole payload

    const Specials none_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Scratch>> scratch_;

    template <class Id>
    class Writer {
    public:
        Writer(const Encoder& encoder, Scratch& scratch, IdBuffer& buffer, const Byte* end)
            : encoder_(encoder),
              scratch_(scratch),
              buffer_(buffer),
              end_(end),
              out_(buffer.reserve(0)) {}
        ~Writer() { buffer_.advance_to(out_); }

        // All keys are made and their sets fetched before the first is looked up.
        void pretokens(const Byte* p, const Byte* const* ends, std::size_t count) {
            Words::Key keys[kBatch];
            Words::Set* sets[kBatch];
            const Byte* begin = p;
            for (std::size_t i = 0; i < count; begin = ends[i++]) {
                const std::size_t size = static_cast<std::size_t>(ends[i] - begin);
                const lmlab::Key key = make_key(begin, std::min(size, Words::kLongest), end_);
                keys[i] = {{key.low, key.high}};
                sets[i] = &scratch_.words.set_of(keys[i]);
                __builtin_prefetch(sets[i]);
                if (size > Words::kLongest && size <= LongWords::kLongest)
                    prefetch(long_set(make_long_key(begin, size)));
            }
            Byte* out =
                out_;  // a local: bytes written to the output might be this object's otherwise
            for (std::size_t i = 0; i < count; p = ends[i++]) {
                const std::size_t size = static_cast<std::size_t>(ends[i] - p);
                if (size <= Words::kLongest && copy<Words>(*sets[i], keys[i], out)) [[likely]]
                    continue;
                out_ = out;
                not_at_hand({p, ends + i, count - i, keys + i, sets + i});
                out = out_;
            }
            out_ = out;
        }

        void special(const Special& token) { write(token.id); }

    private:
        const Encoder& encoder_;
        Scratch& scratch_;
        IdBuffer& buffer_;
        const Byte* end_;
        Byte* out_;

        // Writes the ids of a pretoken if the set has them.
        template <class C>
        static bool copy(typename C::Set& set, const typename C::Key& key, Byte*& out) {
            auto* entry = C::find(set, key);
            if (entry == nullptr || entry->count() == C::kElsewhere) [[unlikely]]
                return false;
            // Not marked twice: a store just before would delay the copy.
            if (entry->used() == 0) entry->used() = 1;
            std::memcpy(out, entry->payload, C::kCopied);
            out += entry->count() * sizeof(Id);
            return true;
        }

        // What is left of a batch.
        struct Rest {
            const Byte* p;
            const Byte* const* ends;
            std::size_t count;
            const Words::Key* keys;
            Words::Set* const* sets;
        };

        // Writes the ids of the first one, which are not in the first cache. Apart from the loop
        // over the batch, which would have fewer registers otherwise.
        [[gnu::noinline]] void not_at_hand(const Rest& rest) {
            const std::size_t size = static_cast<std::size_t>(rest.ends[0] - rest.p);
            if (size > LongWords::kLongest) {
                encoder_.bpe.encode(rest.p, size, scratch_.work);
                for (const std::uint32_t id : scratch_.work.ids) write(id);
            } else if (size <= Words::kLongest && !Words::find(*rest.sets[0], rest.keys[0])) {
                learn(rest);
            } else {
                const LongWords::Key key = make_long_key(rest.p, size);
                if (!copy<LongWords>(long_set(key), key, out_)) learn(rest);
            }
        }

        // Merges the first one, and beside it those soon to come that are not known either.
        void learn(const Rest& rest) {
            // Where most are known, looking farther costs more than it brings.
            const std::size_t soon = std::min(rest.count, 2 * Bpe::kLanes);
            Bpe::Pretoken pretokens[Bpe::kLanes];
            std::size_t indices[Bpe::kLanes], found = 0;
            const Byte* p = rest.p;
            for (std::size_t i = 0; i < soon && found < Bpe::kLanes; p = rest.ends[i++]) {
                const std::size_t size = static_cast<std::size_t>(rest.ends[i] - p);
                if (i > 0 && known(p, size, *rest.sets[i], rest.keys[i])) continue;
                indices[found] = i;
                pretokens[found++] = {p, size};
            }
            encoder_.bpe.encode_together(
                pretokens, found,
                [&](std::size_t which, const std::uint32_t* ids, std::size_t count) {
                    const auto [begin, size] = pretokens[which];
                    const std::size_t i = indices[which];
                    if (which == 0)
                        for (std::size_t k = 0; k < count; ++k) write(ids[k]);
                    if (size <= Words::kLongest && !Words::find(*rest.sets[i], rest.keys[i]) &&
                        Words::insert<Id>(*rest.sets[i], rest.keys[i], ids, count))
                        return;
                    const LongWords::Key key = make_long_key(begin, size);
                    LongWords::insert<Id>(long_set(key), key, ids, count);
                });
        }

        // Whether the ids of a pretoken are in a cache, or it is too long to be in one.
        bool known(const Byte* p, std::size_t size, Words::Set& set, const Words::Key& key) {
            if (size > LongWords::kLongest) return true;
            if (size <= Words::kLongest) {
                auto* entry = Words::find(set, key);
                if (entry == nullptr) return false;
                if (entry->count() != Words::kElsewhere) return true;
            }
            const LongWords::Key long_key = make_long_key(p, size);
            return LongWords::find(long_set(long_key), long_key) != nullptr;
        }

        LongWords::Set& long_set(const LongWords::Key& key) {
            return scratch_.long_words.set_of(key);
        }

        static void prefetch(const LongWords::Set& set) {
            for (std::size_t i = 0; i < sizeof set; i += 64)
                __builtin_prefetch(reinterpret_cast<const Byte*>(&set) + i);
        }

        static LongWords::Key make_long_key(const Byte* p, std::size_t size) {
            LongWords::Key key{};
            std::memcpy(key.words, p, size);
            key.words[5] |= std::uint64_t{size} << 56;
            return key;
        }

        void write(std::uint32_t wide) {
            const Id id = static_cast<Id>(wide);
            std::memcpy(out_, &id, sizeof id);
            out_ += sizeof id;
        }
    };

    template <class Id>
    const Byte* encode_as(const Byte* p, const Byte* end, bool final, bool parse, IdBuffer& out,
                          Scratch& scratch) const {
        out.reserve((static_cast<std::size_t>(end - p) + kSlack) * sizeof(Id));
        Writer<Id> writer(*this, scratch, out, end);
        return segment(pattern, p, end, final, looked_for(parse), writer);
    }
};

// Borrows a Scratch for as long as it lives.
class Borrowed {
public:
    // `watch` is called now and then inside a very long pretoken; it may throw.
    explicit Borrowed(Encoder& encoder, std::function<void()> watch = nullptr)
        : encoder_(encoder), scratch_(encoder.borrow()) {
        scratch_->work.watch = std::move(watch);
    }
    ~Borrowed() {
        scratch_->work.watch = nullptr;
        encoder_.give_back(std::move(scratch_));
    }
    Borrowed(const Borrowed&) = delete;
    Borrowed& operator=(const Borrowed&) = delete;
    Encoder::Scratch& operator*() const { return *scratch_; }

private:
    Encoder& encoder_;
    std::unique_ptr<Encoder::Scratch> scratch_;
};

}  // namespace lmlab
