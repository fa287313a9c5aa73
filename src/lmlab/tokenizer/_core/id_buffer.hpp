// Ids in memory that numpy can take over.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "utf8.hpp"

namespace lmlab {

// Grows as ids of 2 or 4 bytes are written behind its end.
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

}  // namespace lmlab
