// Zeros in large pages where the system has them: a table that is read at random misses the
// processor's table of addresses far less often. What is never touched costs neither time nor
// memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <type_traits>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lmlab {

// An array of things that are valid when all their bytes are zero.
template <class T>
class HugeZeros {
    static_assert(std::is_trivially_default_constructible_v<T> &&
                  std::is_trivially_destructible_v<T>);

public:
    explicit HugeZeros(std::size_t count) : size_(count) {
        bytes_ = count * sizeof(T) + kPage;  // so that a page begins in it
#if defined(__linux__)
        memory_ =
            ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory_ == MAP_FAILED) throw std::bad_alloc();
#else
        memory_ = std::calloc(bytes_, 1);
        if (memory_ == nullptr) throw std::bad_alloc();
#endif
        const auto address = reinterpret_cast<std::uintptr_t>(memory_);
        first_ = reinterpret_cast<T*>((address + kPage - 1) / kPage * kPage);
#if defined(__linux__)
        // A wish: whether it is granted changes only the speed.
        ::madvise(first_, count * sizeof(T), MADV_HUGEPAGE);
#endif
    }
    ~HugeZeros() {
#if defined(__linux__)
        ::munmap(memory_, bytes_);
#else
        std::free(memory_);
#endif
    }
    HugeZeros(const HugeZeros&) = delete;
    HugeZeros& operator=(const HugeZeros&) = delete;

    std::size_t size() const { return size_; }
    T& operator[](std::size_t i) { return first_[i]; }

private:
    static constexpr std::size_t kPage = std::size_t{1} << 21;

    std::size_t size_, bytes_;
    void* memory_;
    T* first_;
};

}  // namespace lmlab
