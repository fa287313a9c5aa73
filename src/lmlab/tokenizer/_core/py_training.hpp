// Counter of lmlab/tokenizer/native.py.
#pragma once

#include "python.hpp"

namespace lmlab {

class PyCounter {
public:
    PyCounter(const std::string& pattern, const std::vector<nb::bytes>& specials, unsigned threads,
              std::size_t chunk_bytes, bool replace, nb::object progress)
        : reporter_(std::move(progress)), threads_(threads) {
        std::vector<std::pair<nb::bytes, std::uint32_t>> tokens;
        for (const nb::bytes& special : specials) tokens.emplace_back(special, 0);
        sink_ = std::make_unique<CountSink>(pattern_named(pattern), to_specials(tokens), threads,
                                            chunk_bytes, replace, [this] { reporter_(total_); });
    }

    void add_path(nb::bytes path) { add_file(sink(), to_string(path), total_, reporter_); }

    void add(nb::bytes piece) {
        const View view = view_of(piece);
        const nb::gil_scoped_release nogil;
        total_ += view.size;
        sink().add(view.data, view.size);
    }

    void end_text() {
        const nb::gil_scoped_release nogil;
        sink().end_text();
    }

    void add_texts(const std::vector<nb::object>& texts) {
        for (const nb::object& text : texts) {
            const View view = view_of(text);
            check_utf8(view);
            total_ += view.size;
            sink().add_text(view.data, view.size);
        }
        reporter_(total_);
    }

    void add_pretokens(const std::vector<nb::bytes>& pretokens) {
        for (const nb::bytes& pretoken : pretokens) {
            const View view = view_of(pretoken);
            total_ += view.size;
            sink().add_pretoken(view.data, view.size);
        }
        reporter_(total_);
    }

    nb::dict counts() {
        const std::unique_ptr<SharedCounts> counts = finish();
        nb::dict found;
        for (unsigned part = 0; part < SharedCounts::kParts; ++part)
            counts->for_each(part, [&](const Byte* p, std::size_t size, std::uint64_t count) {
                found[nb::bytes(p, size)] = count;
            });
        return found;
    }

    std::vector<std::pair<nb::bytes, nb::bytes>> train(std::size_t num_merges,
                                                       nb::object progress) {
        Reporter reporter(std::move(progress));
        std::unique_ptr<SharedCounts> counts = finish();
        reporter_.report(total_);
        // Memory is for merges that can be.
        num_merges = std::min(num_merges, counts->most_merges());
        return num_merges + 256 < 65534
                   ? train_with<std::uint16_t>(std::move(counts), num_merges, threads_, reporter)
                   : train_with<std::uint32_t>(std::move(counts), num_merges, threads_, reporter);
    }

private:
    Reporter reporter_;
    unsigned threads_;
    std::uint64_t total_ = 0;
    std::unique_ptr<CountSink> sink_;

    CountSink& sink() {
        if (!sink_) throw std::invalid_argument("this counter has given its counts away");
        return *sink_;
    }

    std::unique_ptr<SharedCounts> finish() {
        const nb::gil_scoped_release nogil;
        std::unique_ptr<SharedCounts> counts = sink().finish();
        sink_.reset();
        return counts;
    }

    template <class Cell>
    static std::vector<std::pair<nb::bytes, nb::bytes>> train_with(
        std::unique_ptr<SharedCounts> counts, std::size_t num_merges, unsigned threads,
        Reporter& reporter) {
        std::unique_ptr<Trainer<Cell>> trainer;
        Merges merges;
        {
            const nb::gil_scoped_release nogil;
            trainer = std::make_unique<Trainer<Cell>>(std::move(counts), num_merges, threads);
            merges = trainer->run([&](std::uint64_t done) { reporter(done); });
        }
        reporter.report(merges.size());
        std::vector<std::pair<nb::bytes, nb::bytes>> found;
        found.reserve(merges.size());
        const auto bytes = [&](std::uint32_t id) {
            const std::string_view token = trainer->tokens()[id];
            return nb::bytes(token.data(), token.size());
        };
        for (const auto& [a, b] : merges) found.emplace_back(bytes(a), bytes(b));
        return found;
    }
};

}  // namespace lmlab
