// A few threads that work on chunks while the calling thread reads, helps and watches for Ctrl-C.
//
// The queue is bounded: a caller that gets ahead works on a task itself. With one thread there are
// no others and every task runs in submit(). The first exception of any task is thrown from the
// next submit() or drain(); the destructor drops what has not begun. When not all threads can be
// started there is no pool: with memory or processes used up, little else would work.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace lmlab {

// Called often from the calling thread with what has been done; throws to stop the work.
using Poll = std::function<void(std::uint64_t)>;

// The system does not give that many threads; becomes a UserError.
struct NoThread : std::runtime_error {
    NoThread(unsigned threads, const char* reason)
        : std::runtime_error("cannot start " + std::to_string(threads) + " threads (" + reason +
                             "); give a smaller number of threads") {}
};

class Pool {
public:
    using Task = std::function<void(unsigned worker)>;  // worker < size()

    Pool(unsigned threads, std::function<void()> watch) : watch_(std::move(watch)) {
        try {
            helpers_.reserve(threads);
            for (unsigned worker = 1; worker < threads; ++worker)
                helpers_.emplace_back([this, worker] { help(worker); });
        } catch (const std::system_error& error) {
            stop();
            throw NoThread(threads, error.code().message().c_str());
        } catch (const std::bad_alloc&) {
            stop();
            throw NoThread(threads, "out of memory");
        }
    }

    ~Pool() { stop(); }

    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    unsigned size() const { return static_cast<unsigned>(helpers_.size()) + 1; }

    // To be called now and then by a task that takes long; throws when it shall stop.
    void check(unsigned worker) const {
        if (worker == 0) watch_();
        else if (stopping_) throw std::runtime_error("stopped");
    }

    void submit(Task task) {
        watch_();
        if (helpers_.empty()) {
            task(0);
            return;
        }
        {
            const std::lock_guard lock(mutex_);
            queue_.push_back(std::move(task));
        }
        work_.notify_one();
        while (run_one(2 * helpers_.size())) {
        }
        rethrow();
    }

    // Waits until all that was submitted is done.
    void drain() {
        while (run_one(0)) watch_();
        std::unique_lock lock(mutex_);
        while (running_ > 0) {
            idle_.wait_for(lock, std::chrono::milliseconds(50));
            lock.unlock();
            watch_();
            lock.lock();
        }
        lock.unlock();
        rethrow();
    }

private:
    std::function<void()> watch_;
    std::vector<std::thread> helpers_;
    std::mutex mutex_;
    std::condition_variable work_, idle_;
    std::deque<Task> queue_;
    std::size_t running_ = 0;  // in helpers
    std::atomic<bool> stopping_ = false;
    std::exception_ptr failure_;

    // Runs the oldest task here if more than `spare` are waiting.
    bool run_one(std::size_t spare) {
        Task task;
        {
            const std::lock_guard lock(mutex_);
            if (queue_.size() <= spare) return false;
            task = std::move(queue_.front());
            queue_.pop_front();
        }
        task(0);
        return true;
    }

    void stop() {
        {
            const std::lock_guard lock(mutex_);
            stopping_ = true;
            queue_.clear();
        }
        work_.notify_all();
        for (std::thread& helper : helpers_) helper.join();
    }

    void rethrow() {
        const std::lock_guard lock(mutex_);
        if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
    }

    void help(unsigned worker) {
        std::unique_lock lock(mutex_);
        for (;;) {
            work_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
            if (stopping_) return;
            Task task = std::move(queue_.front());
            queue_.pop_front();
            ++running_;
            lock.unlock();
            std::exception_ptr failure;
            try {
                task(worker);
            } catch (...) {
                failure = std::current_exception();
            }
            task = nullptr;
            lock.lock();
            if (failure && !failure_) failure_ = failure;
            if (--running_ == 0) idle_.notify_all();
        }
    }
};

}  // namespace lmlab
