// How often each pretoken occurs.
//
// Text is mostly a few thousand words over and over, and then very many that are seen once. So each
// thread first counts in a small table that stays in its own cache (HotCounts): two entries per
// slot, the rarer one leaves when a third pretoken comes. What leaves is added in batches to one
// table that all threads share, split by hash into parts with a lock each. Every distinct pretoken
// is stored once, however many threads there are.
//
// Short pretokens are their own keys (keys.hpp); longer ones live in an arena.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "keys.hpp"

namespace lmlab {

class ShortCounts {
public:
    struct Entry {
        Key key{};
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
    std::size_t bytes() const { return arena_.size(); }

    void clear() {
        entries_.clear();
        arena_.clear();
        std::fill(slots_.begin(), slots_.end(), 0);
    }

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

    void add_long(const Byte* bytes, const LongCounts::Entry& entry) {
        Part& part = parts_[part_of(entry.hash)];
        const std::lock_guard lock(part.mutex);
        part.longs.add(bytes, entry.size, entry.hash, entry.count);
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

    // No training makes more merges: each joins two tokens of at least one pretoken.
    std::size_t most_merges() const {
        std::size_t most = 0;
        for (unsigned part = 0; part < kParts; ++part)
            for_each(part, [&](const Byte*, std::size_t size, std::uint64_t) { most += size - 1; });
        return most;
    }

private:
    std::unique_ptr<Part[]> parts_ = std::make_unique<Part[]>(kParts);
};

// One thread's counts on their way to the shared table; flush() at the end.
class HotCounts {
public:
    explicit HotCounts(SharedCounts& shared)
        : shared_(shared), slots_(kSlots), leaving_(SharedCounts::kParts) {
        for (auto& batch : leaving_) batch.reserve(kBatch);
    }

    // Counts the pretokens from p to ends[0], ends[1], ...; bytes up to `end` may be read. All keys
    // are made and their slots fetched before the first is looked at.
    void add_all(const Byte* p, const Byte* const* ends, std::size_t count, const Byte* end) {
        Key keys[kMost];
        Slot* slots[kMost];
        std::size_t found = 0;
        for (std::size_t i = 0; i < count; p = ends[i++]) {
            const std::size_t size = static_cast<std::size_t>(ends[i] - p);
            if (size > kShort) {
                longs_.add(p, size, hash_bytes(p, size), 1);
                if (longs_.bytes() > kLongBytes) send_longs();
                continue;
            }
            const Key key = make_key(p, size, end);
            keys[found] = key;
            slots[found] = &slots_[hash_key(key) & (kSlots - 1)];
            __builtin_prefetch(slots[found++]);
        }
        for (std::size_t i = 0; i < found; ++i) count_in(*slots[i], keys[i]);
    }

    void flush() {
        for (Slot& slot : slots_) {
            for (const Entry& entry : slot.entries)
                if (entry.count > 0) leave(entry);
            slot = {};
        }
        for (unsigned part = 0; part < SharedCounts::kParts; ++part) send(part);
        send_longs();
    }

private:
    using Entry = ShortCounts::Entry;
    struct alignas(64) Slot {  // one cache line
        Entry entries[2];
    };
    static constexpr std::size_t kMost = 256;
    static constexpr std::size_t kSlots = 1 << 14;
    static constexpr std::size_t kBatch = 64;

    static constexpr std::size_t kLongBytes = 1 << 18;

    SharedCounts& shared_;
    LongCounts longs_;
    std::vector<Slot> slots_;
    std::vector<std::vector<Entry>> leaving_;

    void count_in(Slot& slot, const Key& key) {
        const bool second = slot.entries[1].key == key;
        Entry& entry = slot.entries[second];
        if (second || entry.key == key) [[likely]] {  // which of the two costs no branch
            ++entry.count;
            return;
        }
        Entry& rarer = slot.entries[slot.entries[1].count < slot.entries[0].count];
        if (rarer.count > 0) leave(rarer);
        rarer = {key, 1};
    }

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
        for (const Entry& entry : batch)
            part.shorts.add(entry.key, hash_key(entry.key), entry.count);
        batch.clear();
    }

    void send_longs() {
        for (const LongCounts::Entry& entry : longs_.entries())
            shared_.add_long(longs_.bytes(entry), entry);
        longs_.clear();
    }
};

}  // namespace lmlab
