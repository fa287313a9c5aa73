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

// Keys of kWords words with as many bytes of ids.
template <std::size_t kWords>
class Cache {
public:
    static constexpr std::size_t kPayload = kWords * 8;
    static constexpr std::size_t kLongest = kWords * 8 - 1;
    using WideKey = std::array<std::uint64_t, kWords>;

    struct Entry {
        WideKey key{};
        alignas(8) Byte payload[kPayload] = {};  // ids, and in the last two bytes how many
        std::size_t count() const {
            std::uint16_t n;
            std::memcpy(&n, payload + kPayload - 2, 2);
            return n;
        }
    };

    explicit Cache(std::size_t sets) : sets_(sets) {}

    // The entry with this key in front of its set, or nullptr.
    const Entry* find(const WideKey& key) {
        Set& set = sets_[index(key)];
        if (set.first.key == key) return &set.first;
        if (set.second.key != key) return nullptr;
        std::swap(set.first, set.second);
        return &set.first;
    }

    template <class Id>
    void insert(const WideKey& key, const std::vector<std::uint32_t>& ids) {
        if (ids.size() * sizeof(Id) > kPayload - 2) return;
        Set& set = sets_[index(key)];
        set.second = set.first;
        set.first.key = key;
        Byte* out = set.first.payload;
        for (const std::uint32_t wide : ids) {
            const Id id = static_cast<Id>(wide);
            std::memcpy(out, &id, sizeof id);
            out += sizeof id;
        }
        const std::uint16_t count = static_cast<std::uint16_t>(ids.size());
        std::memcpy(set.first.payload + kPayload - 2, &count, 2);
    }

private:
    struct Set {
        Entry first, second;
    };
    std::vector<Set> sets_;

    std::size_t index(const WideKey& key) const {
        std::uint64_t hash = mix(key[0] ^ 0x9E3779B97F4A7C15u, key[1] ^ 0xD1B54A32D192ED03u);
        if constexpr (kWords == 4) hash = mix(hash ^ key[2], key[3] ^ 0xA0761D6478BD642Fu);
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

    // What one thread works with; its caches stay warm from one text to the next.
    struct Scratch {
        Cache<2> words{1 << 15};
        Cache<4> long_words{1 << 12};
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
        if (id_bytes == 2) Writer<std::uint16_t>{*this, scratch, out, p + size}.pretoken(p, p + size);
        else Writer<std::uint32_t>{*this, scratch, out, p + size}.pretoken(p, p + size);
    }

    const Bpe bpe;
    const Specials specials;
    const Pattern pattern;
    const std::size_t id_bytes;

private:
    static constexpr std::size_t kSlack = 32;  // a hit copies a whole payload

    std::mutex mutex_;
    std::vector<std::unique_ptr<Scratch>> scratch_;

    template <class Id>
    class Writer {
    public:
        Writer(const Encoder& encoder, Scratch& scratch, IdBuffer& buffer, const Byte* end)
            : encoder_(encoder), scratch_(scratch), buffer_(buffer), end_(end), out_(buffer.reserve(0)) {}
        ~Writer() { buffer_.advance_to(out_); }

        void pretoken(const Byte* p, const Byte* next) {
            const std::size_t size = static_cast<std::size_t>(next - p);
            if (size <= Cache<2>::kLongest) {
                const Key key = make_key(p, size, end_);
                lookup(scratch_.words, {key.low, key.high}, p, size);
            } else if (size <= Cache<4>::kLongest) {
                std::array<std::uint64_t, 4> key{};
                std::memcpy(key.data(), p, size);
                key[3] |= std::uint64_t{size} << 56;
                lookup(scratch_.long_words, key, p, size);
            } else {
                merge(p, size);
            }
        }

        void special(const Special& token) { write(token.id); }

    private:
        const Encoder& encoder_;
        Scratch& scratch_;
        IdBuffer& buffer_;
        const Byte* end_;
        Byte* out_;

        template <class C>
        void lookup(C& cache, const typename C::WideKey& key, const Byte* p, std::size_t size) {
            if (const auto* entry = cache.find(key)) {
                std::memcpy(out_, entry->payload, C::kPayload);
                out_ += entry->count() * sizeof(Id);
                return;
            }
            merge(p, size);
            cache.template insert<Id>(key, scratch_.work.ids);
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
