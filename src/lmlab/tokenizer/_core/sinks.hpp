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
          chunk_bytes_(chunk_bytes),
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

    // A whole text of its own, in which special tokens are text. Short ones are gathered, because a
    // task of its own for each would take longer than the counting.
    void add_text(const Byte* p, std::size_t size) {
        if (texts_->ends.size() >= kMostTexts || texts_->bytes.size() + size > chunk_bytes_)
            count_texts();
        texts_->bytes.insert(texts_->bytes.end(), p, p + size);
        texts_->ends.push_back(texts_->bytes.size());
    }

    // All counts; there is nothing left to add to after this.
    std::unique_ptr<SharedCounts> finish() {
        stream_.end_text();
        count_texts();
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

    // Whole texts one after the other.
    struct Texts {
        std::vector<Byte> bytes;
        std::vector<std::size_t> ends;
    };
    static constexpr std::size_t kMostTexts = 1 << 16;

    Pattern pattern_;
    Specials specials_;
    std::size_t chunk_bytes_;
    std::shared_ptr<Texts> texts_ = std::make_shared<Texts>();
    std::unique_ptr<SharedCounts> counts_;
    std::deque<HotCounts> hot_;  // by worker
    TextStream stream_;
    Pool pool_;  // the last member: its threads use the others

    void count_texts() {
        pool_.submit([this, texts = std::exchange(texts_, std::make_shared<Texts>())](
                         unsigned worker) {
            const Byte* begin = texts->bytes.data();
            Count count{hot_[worker], begin + texts->bytes.size()};
            const Specials none;
            std::size_t from = 0;
            for (const std::size_t end : texts->ends) {
                segment(pattern_, begin + from, begin + end, true, none, count);
                from = end;
            }
        });
    }

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

    EncodeSink(std::shared_ptr<Encoder> encoder, bool parse, unsigned threads,
               std::size_t chunk_bytes, bool replace, std::function<void()> watch, Write write)
        : encoder_(std::move(encoder)),
          parse_(parse),
          write_(std::move(write)),
          stream_(encoder_->pattern, encoder_->looked_for(parse), chunk_bytes, replace,
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
    bool parse_;
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
            encoder_->encode(begin, begin + shared->bytes.size(), shared->final, parse_,
                             result->ids, *scratch);
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
    EncodeStream(std::shared_ptr<Encoder> encoder, bool parse, bool replace,
                 std::function<void()> watch)
        : encoder_(std::move(encoder)),
          parse_(parse),
          replace_(replace),
          watch_(std::move(watch)) {}

    void feed(const Byte* p, std::size_t size, IdBuffer& out) {
        offset_ += size;
        raw_.insert(raw_.end(), p, p + size);
        check(false);
        // One long pretoken in small pieces is looked at again only when it has doubled.
        if (text_.size() < next_try_) return;
        Borrowed scratch(*encoder_, watch_);
        const Byte* begin = text_.data();
        const Byte* done =
            encoder_->encode(begin, begin + text_.size(), false, parse_, out, *scratch);
        text_.erase(text_.begin(), text_.begin() + (done - begin));
        next_try_ = text_.size() < 1024 ? 0 : 2 * text_.size();
    }

    void finish(IdBuffer& out) {
        check(true);
        Borrowed scratch(*encoder_, watch_);
        encoder_->encode(text_.data(), text_.data() + text_.size(), true, parse_, out,
                         *scratch);
        text_.clear();
        offset_ = 0;
        next_try_ = 0;
    }

private:
    std::shared_ptr<Encoder> encoder_;
    bool parse_;
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
