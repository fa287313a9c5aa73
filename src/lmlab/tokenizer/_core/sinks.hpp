// What texts are poured into: a counter of pretokens and a writer of token files.
//
// Both cut what comes into chunks (TextStream) and hand the chunks to a Pool. Counts may be added
// in any order; ids are written in the order of the chunks, of which only so many are under way
// that memory stays bounded.
#pragma once

#include <atomic>
#include <memory>

#include "encoder.hpp"
#include "pool.hpp"
#include "text_stream.hpp"
#include "trainer.hpp"

namespace lmlab {

class TextSink {
public:
    virtual ~TextSink() = default;
    virtual void add(const Byte* p, std::size_t size) = 0;
    virtual void end_text() = 0;
};

class CountSink final : public TextSink {
public:
    CountSink(Pattern pattern, std::vector<Special> specials, unsigned threads,
              std::size_t chunk_bytes, bool replace, std::function<void()> watch)
        : pattern_(pattern),
          specials_(std::move(specials)),
          counts_(std::make_unique<SharedCounts>()),
          stream_(pattern, specials_, chunk_bytes, replace,
                  [this](Chunk chunk) { take(std::move(chunk)); }),
          pool_(threads, std::move(watch)) {
        for (unsigned worker = 0; worker < pool_.size(); ++worker) hot_.emplace_back(*counts_);
    }

    void add(const Byte* p, std::size_t size) override { stream_.append(p, size); }
    void end_text() override { stream_.end_text(); }

    void add_pretoken(const Byte* p, std::size_t size) {
        if (size > 0) {
            const Byte* end = p + size;
            hot_[0].add_all(p, &end, 1, end);
        }
    }

    // All counts; there is nothing left to add to after this.
    std::unique_ptr<SharedCounts> finish() {
        stream_.end_text();
        pool_.drain();
        for (HotCounts& hot : hot_) hot.flush();
        hot_.clear();
        return std::move(counts_);
    }

private:
    struct Count {
        HotCounts& hot;
        const Byte* end;
        void pretokens(const Byte* p, const Byte* const* ends, std::size_t count) {
            hot.add_all(p, ends, count, end);
        }
        void special(const Special&) {}
    };

    Pattern pattern_;
    Specials specials_;
    std::unique_ptr<SharedCounts> counts_;
    std::deque<HotCounts> hot_;  // by worker
    TextStream stream_;
    Pool pool_;  // the last member: its threads use the others

    void take(Chunk chunk) {
        // std::function wants something that can be copied.
        auto shared = std::make_shared<Chunk>(std::move(chunk));
        pool_.submit([this, shared](unsigned worker) {
            const Byte* begin = shared->bytes.data();
            const Byte* end = begin + shared->bytes.size();
            Count count{hot_[worker], end};
            segment(pattern_, begin, end, shared->final, specials_, count);
        });
    }
};

class EncodeSink final : public TextSink {
public:
    // write(ids) is called in the order of the text, from the calling thread.
    using Write = std::function<void(const IdBuffer&)>;

    EncodeSink(std::shared_ptr<Encoder> encoder, unsigned threads, std::size_t chunk_bytes,
               bool replace, std::function<void()> watch, Write write)
        : encoder_(std::move(encoder)),
          write_(std::move(write)),
          stream_(encoder_->pattern, encoder_->specials, chunk_bytes, replace,
                  [this](Chunk chunk) { take(std::move(chunk)); }),
          pool_(threads, std::move(watch)) {}

    void add(const Byte* p, std::size_t size) override { stream_.append(p, size); }
    void end_text() override { stream_.end_text(); }
    void finish() {
        stream_.end_text();
        pool_.drain();
        write_done();
    }

private:
    struct Result {
        IdBuffer ids;
        std::atomic<bool> done = false;
    };

    std::shared_ptr<Encoder> encoder_;
    Write write_;
    std::deque<std::shared_ptr<Result>> results_;
    TextStream stream_;
    Pool pool_;  // the last member: its threads use the others

    void take(Chunk chunk) {
        auto shared = std::make_shared<Chunk>(std::move(chunk));
        auto result = std::make_shared<Result>();
        results_.push_back(result);
        pool_.submit([this, shared, result](unsigned worker) {
            Borrowed scratch(*encoder_, [this, worker] { pool_.check(worker); });
            const Byte* begin = shared->bytes.data();
            encoder_->encode(begin, begin + shared->bytes.size(), shared->final, result->ids,
                             *scratch);
            shared->bytes = {};
            result->done = true;
        });
        write_done();
        if (results_.size() > 8 * std::size_t{pool_.size()}) {  // one chunk holds all others up
            pool_.drain();
            write_done();
        }
    }

    void write_done() {
        for (; !results_.empty() && results_.front()->done; results_.pop_front())
            write_(results_.front()->ids);
    }
};

// Encodes a text in pieces, as far as what came so far is certain.
class EncodeStream {
public:
    // `watch` is called now and then inside a very long pretoken; it may throw.
    EncodeStream(std::shared_ptr<Encoder> encoder, bool replace, std::function<void()> watch)
        : encoder_(std::move(encoder)), replace_(replace), watch_(std::move(watch)) {}

    void feed(const Byte* p, std::size_t size, IdBuffer& out) {
        offset_ += size;
        raw_.insert(raw_.end(), p, p + size);
        check(false);
        // One long pretoken in small pieces is looked at again only when it has doubled.
        if (text_.size() < next_try_) return;
        Borrowed scratch(*encoder_, watch_);
        const Byte* begin = text_.data();
        const Byte* done = encoder_->encode(begin, begin + text_.size(), false, out, *scratch);
        text_.erase(text_.begin(), text_.begin() + (done - begin));
        next_try_ = text_.size() < 1024 ? 0 : 2 * text_.size();
    }

    void finish(IdBuffer& out) {
        check(true);
        Borrowed scratch(*encoder_, watch_);
        encoder_->encode(text_.data(), text_.data() + text_.size(), true, out, *scratch);
        text_.clear();
        offset_ = 0;
        next_try_ = 0;
    }

private:
    std::shared_ptr<Encoder> encoder_;
    bool replace_;
    std::function<void()> watch_;
    std::vector<Byte> raw_;   // not yet known to be UTF-8
    std::vector<Byte> text_;  // known to be
    std::uint64_t offset_ = 0;
    std::size_t next_try_ = 0;

    void check(bool final) {
        const Byte* begin = raw_.data();
        const Byte* end = begin + raw_.size();
        const Byte* stop;
        if (replace_) {
            stop = append_replaced(text_, begin, end, final);
        } else {
            stop = skip_valid(begin, end);
            if (stop < end && (final || !check_sequence(stop, end).cut))
                throw InvalidUtf8(offset_ - static_cast<std::uint64_t>(end - stop));
            text_.insert(text_.end(), begin, stop);
        }
        raw_.erase(raw_.begin(), raw_.begin() + (stop - begin));
    }
};

}  // namespace lmlab
