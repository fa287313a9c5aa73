// Encoding text: pretokens looked up in a cache, the rest merged.
//
// Nine of ten pretokens were seen a moment ago, so each thread keeps a cache of pretokens and their
// ids: sets of two entries, the one used last in front, of a fixed size. A key of up to 15 bytes
// is two words (see counter.hpp), its ids are stored beside it, and a hit copies all sixteen bytes
// of ids to the output and advances by as many as count: no loop, no branch on their number. Words
// of 16 to 31 bytes, as in scripts with several bytes to the letter, have a cache with entries twice
// as wide.
#pragma once

#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>

#include "bpe.hpp"
#include "segment.hpp"

namespace lmlab {

// Ids of 2 or 4 bytes in memory that numpy can take over.
class IdBuffer {
public:
    IdBuffer() = default;
    IdBuffer(IdBuffer&& other) noexcept { swap(other); }
    IdBuffer& operator=(IdBuffer&& other) noexcept {
        swap(other);
        return *this;
    }
    ~IdBuffer() { std::free(data_); }

    const Byte* data() const { return data_; }
    std::size_t size() const { return size_; }  // in bytes

    // Room for `bytes` more at the returned place. Untouched room costs no memory.
    Byte* reserve(std::size_t bytes) {
        if (capacity_ - size_ < bytes) {
            capacity_ = std::max(size_ + bytes, capacity_ + capacity_ / 2);
            resize_memory();
        }
        return data_ + size_;
    }
    void advance_to(const Byte* end) { size_ = static_cast<std::size_t>(end - data_); }
    void append(const IdBuffer& other) {
        if (other.size_ == 0) return;
        std::memcpy(reserve(other.size_), other.data_, other.size_);
        size_ += other.size_;
    }
    // Gives the memory away, cut to size.
    Byte* release() {
        capacity_ = std::max<std::size_t>(size_, 1);
        resize_memory();
        return std::exchange(data_, nullptr);
    }

private:
    Byte* data_ = nullptr;
    std::size_t size_ = 0, capacity_ = 0;

    void resize_memory() {
        void* grown = std::realloc(data_, capacity_);
        if (grown == nullptr) throw std::bad_alloc();
        data_ = static_cast<Byte*>(grown);
    }
    void swap(IdBuffer& other) {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
    }
};

// Pretokens shorter than kWords words and their ids, which take less than kPayload bytes.
template <std::size_t kWords, std::size_t kPayload>
class Cache {
public:
    static constexpr std::size_t kCopied = kPayload;
    static constexpr std::size_t kLongest = kWords * 8 - 1;  // bytes of a pretoken
    static constexpr Byte kElsewhere = 255;                  // the count where the ids do not fit

    // Padded with zeros, the size in the last byte. Not cleared by itself: arrays of it cost nothing.
    struct Key {
        std::uint64_t words[kWords];
        bool operator==(const Key& other) const {  // without a branch for each word
            std::uint64_t difference = 0;
            for (std::size_t i = 0; i < kWords; ++i) difference |= words[i] ^ other.words[i];
            return difference == 0;
        }
    };

    struct Entry {
        Key key;
        Byte payload[kPayload];  // ids; in the last two bytes how many, and whether used lately
        Byte& count() { return payload[kPayload - 2]; }
        Byte& used() { return payload[kPayload - 1]; }
    };
    struct alignas(64) Set {  // whole cache lines
        Entry entries[2];
    };

    explicit Cache(std::size_t sets) : sets_(sets) {}

    Set& set_of(const Key& key) { return sets_[index(key)]; }

    // The entry with this key, or nullptr. Which of the two it is costs no branch.
    static Entry* find(Set& set, const Key& key) {
        const bool first = set.entries[0].key == key, second = set.entries[1].key == key;
        if (!(first | second)) return nullptr;
        return &set.entries[second];
    }

    // Replaces an entry that was not used since something else was replaced. Returns whether the
    // ids had room.
    template <class Id>
    static bool insert(Set& set, const Key& key, const std::vector<std::uint32_t>& ids) {
        const bool second = set.entries[0].used() != 0;
        set.entries[0].used() = set.entries[1].used() = 0;
        Entry& entry = set.entries[second];
        entry.key = key;
        entry.count() = kElsewhere;
        if (ids.size() * sizeof(Id) > kPayload - 2) return false;
        entry.count() = static_cast<Byte>(ids.size());
        Byte* out = entry.payload;
        for (const std::uint32_t wide : ids) {
            const Id id = static_cast<Id>(wide);
            std::memcpy(out, &id, sizeof id);
            out += sizeof id;
        }
        return true;
    }

private:
    std::vector<Set> sets_;

    std::size_t index(const Key& key) const {
        const auto& w = key.words;
        std::uint64_t hash = mix(w[0] ^ 0x9E3779B97F4A7C15u, w[1] ^ 0xD1B54A32D192ED03u);
        if constexpr (kWords == 4) hash = mix(hash ^ w[2], w[3] ^ 0xA0761D6478BD642Fu);
        return hash & (sets_.size() - 1);
    }
};

class Encoder {
public:
    Encoder(std::vector<std::string> vocab,
            const std::vector<std::pair<std::string, std::string>>* merges,
            std::vector<Special> specials, Pattern pattern)
        : bpe(std::move(vocab), merges), specials(std::move(specials)), pattern(pattern),
          id_bytes(bpe.vocab().size() <= 65536 ? 2 : 4) {}

    using Words = Cache<2, 16>;
    using LongWords = Cache<4, 64>;

    // What one thread works with; its caches stay warm from one text to the next.
    struct Scratch {
        Words words{1 << 17};
        LongWords long_words{1 << 14};
        Bpe::Workspace work;
    };

    std::unique_ptr<Scratch> borrow() {
        const std::lock_guard lock(mutex_);
        if (scratch_.empty()) return fresh();
        std::unique_ptr<Scratch> one = std::move(scratch_.back());
        scratch_.pop_back();
        return one;
    }
    void give_back(std::unique_ptr<Scratch> one) {
        const std::lock_guard lock(mutex_);
        scratch_.push_back(std::move(one));
    }

    // Append the ids of [p, end); see segment() for `final` and the result.
    const Byte* encode(const Byte* p, const Byte* end, bool final, IdBuffer& out,
                       Scratch& scratch) const {
        return id_bytes == 2 ? encode_as<std::uint16_t>(p, end, final, out, scratch)
                             : encode_as<std::uint32_t>(p, end, final, out, scratch);
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
    static constexpr std::size_t kSlack = 32;  // a hit copies a whole payload

    std::mutex mutex_;
    std::vector<std::unique_ptr<Scratch>> scratch_;
    std::vector<std::uint32_t> whole_;  // tokens that a pretoken of the same bytes becomes
    bool whole_known_ = false;

    // With the tokens of the vocabulary in its cache already.
    std::unique_ptr<Scratch> fresh() {
        auto scratch = std::make_unique<Scratch>();
        const auto& vocab = bpe.vocab();
        if (!whole_known_) {
            for (std::size_t id = 0; id < vocab.size(); ++id) {
                const std::string& token = vocab[id];
                if (token.empty() || token.size() > Words::kLongest) continue;
                bpe.encode(reinterpret_cast<const Byte*>(token.data()), token.size(), scratch->work);
                if (scratch->work.ids.size() == 1 && scratch->work.ids[0] == id)
                    whole_.push_back(static_cast<std::uint32_t>(id));
            }
            whole_known_ = true;
        }
        for (const std::uint32_t id : whole_) {
            const auto* p = reinterpret_cast<const Byte*>(vocab[id].data());
            const lmlab::Key key = make_key(p, vocab[id].size(), p + vocab[id].size());
            Words::Set& set = scratch->words.set_of({{key.low, key.high}});
            if (id_bytes == 2) Words::insert<std::uint16_t>(set, {{key.low, key.high}}, {id});
            else Words::insert<std::uint32_t>(set, {{key.low, key.high}}, {id});
        }
        return scratch;
    }

    template <class Id>
    class Writer {
    public:
        Writer(const Encoder& encoder, Scratch& scratch, IdBuffer& buffer, const Byte* end)
            : encoder_(encoder), scratch_(scratch), buffer_(buffer), end_(end), out_(buffer.reserve(0)) {}
        ~Writer() { buffer_.advance_to(out_); }

        // All keys are made and their sets fetched before the first is looked up.
        void pretokens(const Byte* p, const Byte* const* ends, std::size_t count) {
            Words::Key keys[kBlockBytes];
            Words::Set* sets[kBlockBytes];
            const Byte* begin = p;
            for (std::size_t i = 0; i < count; begin = ends[i++]) {
                const std::size_t size = static_cast<std::size_t>(ends[i] - begin);
                const lmlab::Key key = make_key(begin, std::min(size, Words::kLongest), end_);
                keys[i] = {{key.low, key.high}};
                sets[i] = &scratch_.words.set_of(keys[i]);
                __builtin_prefetch(sets[i]);
            }
            Byte* out = out_;  // a local: bytes written to the output might be this object's otherwise
            for (std::size_t i = 0; i < count; p = ends[i++]) {
                const std::size_t size = static_cast<std::size_t>(ends[i] - p);
                if (size <= Words::kLongest && copy<Words>(*sets[i], keys[i], out)) [[likely]]
                    continue;
                out_ = out;
                not_at_hand(p, size, *sets[i], keys[i]);
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
            if (entry == nullptr || entry->count() == C::kElsewhere) [[unlikely]] return false;
            // Not marked twice: a store just before would delay the copy.
            if (entry->used() == 0) entry->used() = 1;
            std::memcpy(out, entry->payload, C::kCopied);
            out += entry->count() * sizeof(Id);
            return true;
        }

        void not_at_hand(const Byte* p, std::size_t size, Words::Set& set, const Words::Key& key) {
            if (size > LongWords::kLongest) {
                merge(p, size);
                return;
            }
            if (size <= Words::kLongest && Words::find(set, key) == nullptr) {
                merge(p, size);
                if (Words::insert<Id>(set, key, scratch_.work.ids)) return;
                const LongWords::Key long_key = make_long_key(p, size);
                LongWords::insert<Id>(scratch_.long_words.set_of(long_key), long_key, scratch_.work.ids);
                return;
            }
            const LongWords::Key long_key = make_long_key(p, size);
            LongWords::Set& long_set = scratch_.long_words.set_of(long_key);
            if (copy<LongWords>(long_set, long_key, out_)) return;
            merge(p, size);
            LongWords::insert<Id>(long_set, long_key, scratch_.work.ids);
        }

        static LongWords::Key make_long_key(const Byte* p, std::size_t size) {
            LongWords::Key key{};
            std::memcpy(key.words, p, size);
            key.words[3] |= std::uint64_t{size} << 56;
            return key;
        }

        void merge(const Byte* p, std::size_t size) {
            encoder_.bpe.encode(p, size, scratch_.work);
            for (const std::uint32_t id : scratch_.work.ids) write(id);
        }

        void write(std::uint32_t wide) {
            const Id id = static_cast<Id>(wide);
            std::memcpy(out_, &id, sizeof id);
            out_ += sizeof id;
        }
    };

    template <class Id>
    const Byte* encode_as(const Byte* p, const Byte* end, bool final, IdBuffer& out,
                          Scratch& scratch) const {
        out.reserve((static_cast<std::size_t>(end - p) + kSlack) * sizeof(Id));
        Writer<Id> writer(*this, scratch, out, end);
        return segment(pattern, p, end, final, specials, writer);
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
