// How often each pretoken occurs.
//
// Text is mostly a few thousand words over and over, and then very many that are seen once. So each
// thread first counts in a small table that stays in its own cache (HotCounts): two entries per
// slot, the older one leaves when a third pretoken comes. What leaves is added in batches to one
// table that all threads share, split by hash into parts with a lock each. Every distinct pretoken
// is stored once, however many threads there are.
//
// Pretokens of up to 15 bytes are kept as two words, padded with zeros, with the length in the last
// byte; they are compared and hashed without following a pointer. Longer ones live in an arena.
#pragma once

#include <bit>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "utf8.hpp"

namespace lmlab {

static_assert(std::endian::native == std::endian::little, "keys are masked as little-endian words");

struct Key {  // empty when high == 0
    std::uint64_t low = 0, high = 0;
    bool operator==(const Key&) const = default;
    unsigned size() const { return static_cast<unsigned>(high >> 56); }
};

inline constexpr std::size_t kShort = 15;

// The key of the `size` (1..15) bytes at p; bytes up to `end` may be read.
inline Key make_key(const Byte* p, std::size_t size, const Byte* end) {
    Key key;
    if (end - p >= 16) {
        key.low = load64(p);
        key.high = load64(p + 8);
        const unsigned bits = static_cast<unsigned>(size) * 8;
        if (size < 8) {
            key.low &= (std::uint64_t{1} << bits) - 1;
            key.high = 0;
        } else {
            key.high &= (std::uint64_t{1} << (bits - 64)) - 1;
        }
    } else {
        Byte padded[16] = {};
        std::memcpy(padded, p, size);
        key = {load64(padded), load64(padded + 8)};
    }
    key.high |= std::uint64_t{size} << 56;
    return key;
}

inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
    __extension__ using Wide = unsigned __int128;
    const Wide product = static_cast<Wide>(a) * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

inline std::uint64_t hash_key(const Key& key) {
    return mix(key.low ^ 0x9E3779B97F4A7C15u, key.high ^ 0xD1B54A32D192ED03u);
}

inline std::uint64_t hash_bytes(const Byte* p, std::size_t size) {
    std::uint64_t hash = size * 0x9E3779B97F4A7C15u;
    for (; size >= 16; p += 16, size -= 16)
        hash = mix(load64(p) ^ hash, load64(p + 8) ^ 0xD1B54A32D192ED03u);
    if (size > 0) {
        Byte padded[16] = {};
        std::memcpy(padded, p, size);
        hash = mix(load64(padded) ^ hash, load64(padded + 8) ^ 0xA0761D6478BD642Fu);
    }
    return mix(hash ^ 0xE7037ED1A0B428DBu, 0x8EBC6AF09C88C6E3u);
}

// Slot of a hash in a table of any size: the upper bits, scaled.
inline std::size_t scale(std::uint64_t hash, std::size_t slots) {
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::size_t>((static_cast<Wide>(hash) * slots) >> 64);
}

class ShortCounts {
public:
    struct Entry {
        Key key;
        std::uint64_t count = 0;
    };

    void add(const Key& key, std::uint64_t hash, std::uint64_t count) {
        if (used_ >= entries_.size() - entries_.size() / 6) grow();
        Entry& entry = find(key, hash);
        if (entry.key.high == 0) {
            entry.key = key;
            ++used_;
        }
        entry.count += count;
    }

    void prefetch(std::uint64_t hash) const {
        if (!entries_.empty()) __builtin_prefetch(&entries_[scale(hash << 8, entries_.size())]);
    }

    const std::vector<Entry>& entries() const { return entries_; }

private:
    std::vector<Entry> entries_;
    std::size_t used_ = 0;

    // The part of the shared table is chosen by the upper byte of the hash, the slot by the rest.
    Entry& find(const Key& key, std::uint64_t hash) {
        std::size_t slot = scale(hash << 8, entries_.size());
        while (entries_[slot].key.high != 0 && entries_[slot].key != key)
            if (++slot == entries_.size()) slot = 0;
        return entries_[slot];
    }

    void grow() {
        std::vector<Entry> old(entries_.size() + entries_.size() / 2 + 64);
        old.swap(entries_);
        for (const Entry& entry : old)
            if (entry.key.high != 0) find(entry.key, hash_key(entry.key)) = entry;
    }
};

class LongCounts {
public:
    struct Entry {
        std::uint64_t hash, count, offset, size;
    };

    void add(const Byte* p, std::size_t size, std::uint64_t hash, std::uint64_t count) {
        if (entries_.size() >= slots_.size() - slots_.size() / 4) grow();
        std::size_t slot = scale(hash << 8, slots_.size());
        for (; slots_[slot] != 0; slot = slot + 1 == slots_.size() ? 0 : slot + 1) {
            Entry& entry = entries_[slots_[slot] - 1];
            if (entry.hash == hash && entry.size == size &&
                std::memcmp(&arena_[entry.offset], p, size) == 0) {
                entry.count += count;
                return;
            }
        }
        entries_.push_back({hash, count, arena_.size(), size});
        arena_.insert(arena_.end(), p, p + size);
        slots_[slot] = entries_.size();
    }

    const std::vector<Entry>& entries() const { return entries_; }
    const Byte* bytes(const Entry& entry) const { return &arena_[entry.offset]; }

private:
    std::vector<std::size_t> slots_;  // index + 1 into entries_
    std::vector<Entry> entries_;
    std::vector<Byte> arena_;

    void grow() {
        slots_.assign(2 * slots_.size() + 16, 0);
        for (std::size_t i = 0; i < entries_.size(); ++i) {
            std::size_t slot = scale(entries_[i].hash << 8, slots_.size());
            while (slots_[slot] != 0) slot = slot + 1 == slots_.size() ? 0 : slot + 1;
            slots_[slot] = i + 1;
        }
    }
};

// The table that all threads share.
class SharedCounts {
public:
    static constexpr unsigned kParts = 64;

    struct Part {
        std::mutex mutex;
        ShortCounts shorts;
        LongCounts longs;
    };

    static unsigned part_of(std::uint64_t hash) { return static_cast<unsigned>(hash >> 58); }

    Part& part(unsigned index) { return parts_[index]; }

    void add_long(const Byte* p, std::size_t size) {
        const std::uint64_t hash = hash_bytes(p, size);
        Part& part = parts_[part_of(hash)];
        const std::lock_guard lock(part.mutex);
        part.longs.add(p, size, hash, 1);
    }

    // visit(bytes, size, count) for every distinct pretoken of one part.
    template <class Visit>
    void for_each(unsigned index, Visit visit) const {
        for (const auto& entry : parts_[index].shorts.entries())
            if (entry.key.high != 0)
                visit(reinterpret_cast<const Byte*>(&entry.key), std::size_t{entry.key.size()},
                      entry.count);
        for (const auto& entry : parts_[index].longs.entries())
            visit(parts_[index].longs.bytes(entry), static_cast<std::size_t>(entry.size),
                  entry.count);
    }

private:
    std::unique_ptr<Part[]> parts_ = std::make_unique<Part[]>(kParts);
};

// One thread's counts on their way to the shared table; flush() at the end.
class HotCounts {
public:
    explicit HotCounts(SharedCounts& shared) : shared_(shared), slots_(kSlots), leaving_(SharedCounts::kParts) {
        for (auto& batch : leaving_) batch.reserve(kBatch);
    }

    // `end` is where the bytes around the pretoken may be read up to.
    void add(const Byte* p, std::size_t size, const Byte* end) {
        if (size > kShort) {
            shared_.add_long(p, size);
            return;
        }
        const Key key = make_key(p, size, end);
        const std::uint64_t hash = hash_key(key);
        Slot& slot = slots_[hash & (kSlots - 1)];
        if (slot.first.key == key) {
            ++slot.first.count;
        } else if (slot.second.key == key) {
            ++slot.second.count;
            if (slot.second.count > slot.first.count) std::swap(slot.first, slot.second);
        } else {
            if (slot.second.key.high != 0) leave(slot.second);
            slot.second = {key, 1};
        }
    }

    void flush() {
        for (Slot& slot : slots_) {
            for (Entry* entry : {&slot.first, &slot.second})
                if (entry->key.high != 0) leave(*entry);
            slot = {};
        }
        for (unsigned part = 0; part < SharedCounts::kParts; ++part) send(part);
    }

private:
    using Entry = ShortCounts::Entry;
    struct Slot {
        Entry first, second;
    };
    static constexpr std::size_t kSlots = 1 << 14;
    static constexpr std::size_t kBatch = 64;

    SharedCounts& shared_;
    std::vector<Slot> slots_;
    std::vector<std::vector<Entry>> leaving_;

    void leave(const Entry& entry) {
        const unsigned part = SharedCounts::part_of(hash_key(entry.key));
        leaving_[part].push_back(entry);
        if (leaving_[part].size() == kBatch) send(part);
    }

    void send(unsigned index) {
        auto& batch = leaving_[index];
        SharedCounts::Part& part = shared_.part(index);
        const std::lock_guard lock(part.mutex);
        for (const Entry& entry : batch) part.shorts.prefetch(hash_key(entry.key));
        for (const Entry& entry : batch) part.shorts.add(entry.key, hash_key(entry.key), entry.count);
        batch.clear();
    }
};

}  // namespace lmlab
