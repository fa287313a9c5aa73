// The ids of the pretokens seen lately, of a fixed size: sets of two entries, of which the one that
// was not used in the meantime is replaced.
//
// A key is the pretoken itself, padded to two words (see counter.hpp), or to six for words of 16
// to 47 bytes, as in scripts with several bytes to the letter; its ids are stored beside it.
#pragma once

#include "huge.hpp"
#include "keys.hpp"

namespace lmlab {

// Pretokens shorter than kWords words and their ids, which take less than kPayload bytes.
template <std::size_t kWords, std::size_t kPayload>
class Cache {
public:
    static constexpr std::size_t kCopied = kPayload;
    static constexpr std::size_t kLongest = kWords * 8 - 1;  // bytes of a pretoken
    static constexpr Byte kElsewhere = 255;                  // the count where the ids do not fit

    // Padded with zeros, the size in the last byte. Not cleared by itself: arrays of it cost
    // nothing.
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
    static bool insert(Set& set, const Key& key, const std::uint32_t* ids, std::size_t count) {
        const bool second = set.entries[0].used() != 0;
        set.entries[0].used() = set.entries[1].used() = 0;
        Entry& entry = set.entries[second];
        entry.key = key;
        entry.count() = kElsewhere;
        if (count * sizeof(Id) > kPayload - 2) return false;
        entry.count() = static_cast<Byte>(count);
        for (std::size_t i = 0; i < count; ++i) {
            const Id id = static_cast<Id>(ids[i]);
            std::memcpy(entry.payload + i * sizeof id, &id, sizeof id);
        }
        return true;
    }

private:
    HugeZeros<Set> sets_;

    std::size_t index(const Key& key) const {
        const auto& w = key.words;
        std::uint64_t hash = mix(w[0] ^ 0x9E3779B97F4A7C15u, w[1] ^ 0xD1B54A32D192ED03u);
        for (std::size_t i = 2; i < kWords; i += 2)
            hash = mix(hash ^ w[i], w[i + 1] ^ 0xA0761D6478BD642Fu);
        return hash & (sets_.size() - 1);
    }
};

}  // namespace lmlab
