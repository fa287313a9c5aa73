// Memory in large pages where the system has them: a table that is read at random misses the
// processor's table of addresses far less often.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lmlab {

// An allocator for vectors of a megabyte and more.
template <class T>
struct HugeAllocator {
    using value_type = T;
    HugeAllocator() = default;
    template <class U>
    HugeAllocator(const HugeAllocator<U>&) {}

    T* allocate(std::size_t count) {
        constexpr std::size_t kPage = std::size_t{1} << 21;
        const std::size_t size = (count * sizeof(T) + kPage - 1) / kPage * kPage;
        void* p = std::aligned_alloc(kPage, size);
        if (p == nullptr) throw std::bad_alloc();
#if defined(__linux__)
        ::madvise(p, size, MADV_HUGEPAGE);  // a wish: whether it is granted changes only the speed
#endif
        return static_cast<T*>(p);
    }
    void deallocate(T* p, std::size_t) { std::free(p); }
    bool operator==(const HugeAllocator&) const = default;
};

}  // namespace lmlab
