// Encoder, EncoderStream and FileEncoder of lmlab/tokenizer/native.py.
#pragma once

#include "python.hpp"

namespace lmlab {

class PyEncoder {
public:
    PyEncoder(const std::vector<nb::bytes>& vocab,
              const std::optional<std::vector<std::pair<nb::bytes, nb::bytes>>>& merges,
              const std::vector<std::pair<nb::bytes, std::uint32_t>>& specials,
              const std::vector<std::uint32_t>& hidden, const std::string& pattern,
              bool ignore_merges) {
        std::vector<std::string> tokens;
        tokens.reserve(vocab.size());
        for (const nb::bytes& token : vocab) tokens.push_back(to_string(token));
        std::vector<std::pair<std::string, std::string>> pairs;
        if (merges)
            for (const auto& [a, b] : *merges) pairs.emplace_back(to_string(a), to_string(b));
        core = std::make_shared<Encoder>(std::move(tokens), merges ? &pairs : nullptr,
                                         to_specials(specials), hidden,
                                         pattern_named(pattern), ignore_merges);
    }

    std::shared_ptr<Encoder> core;

    nb::object encode(nb::object text, bool parse, unsigned threads) const {
        Reporter reporter{nb::none()};
        const View view = view_of(text);
        IdBuffer out;
        {
            const nb::gil_scoped_release nogil;
            check_utf8(view);
            if (threads <= 1 || view.size < kLong) {
                encode_here(view, parse, out, reporter);
            } else {
                Parts parts;
                Pool pool(threads, [&] { reporter(0); });
                submit_parts(view, parse, pool, parts);
                pool.drain();
                out = joined(parts);
            }
        }
        return to_array(std::move(out), core->id_bytes);
    }

    // Texts of a group share one array, of which each gets a part: arrays of their own would take
    // longer than the encoding of a short text. A long text is a group by itself, in parts.
    nb::list encode_batch(nb::list texts, bool parse, unsigned threads) const {
        struct Group {
            std::size_t begin, end;
            IdBuffer ids;
            std::vector<std::size_t> ends;  // in ids, of each text
            Parts parts;                    // of a long text, instead of both
        };
        Reporter reporter{nb::none()};
        std::vector<View> views;
        views.reserve(texts.size());
        std::deque<Group> groups;
        {
            Pool pool(threads, [&] { reporter(0); });
            while (views.size() < texts.size()) {
                // Python makes UTF-8 of most texts here, while the other threads encode.
                const std::size_t begin = views.size();
                for (std::size_t bytes = 0; views.size() < texts.size() && bytes < kPart / 4;) {
                    views.push_back(view_of(texts[views.size()]));
                    bytes += views.back().size + 64;
                }
                // A long text ends the group that it would be in.
                const View last = views.back();
                const bool is_long = threads > 1 && last.size >= kLong;
                const std::size_t end = views.size() - is_long;
                const nb::gil_scoped_release nogil;
                if (is_long) check_utf8(last);
                Group& group = groups.emplace_back(Group{begin, end, {}, {}, {}});
                pool.submit([&](unsigned worker) {
                    Borrowed scratch(*core, [&pool, worker] { pool.check(worker); });
                    for (std::size_t i = group.begin; i < group.end; ++i) {
                        check_utf8(views[i]);
                        core->encode(views[i].data, views[i].end(), true, parse, group.ids, *scratch);
                        group.ends.push_back(group.ids.size() / core->id_bytes);
                    }
                });
                if (is_long)
                    submit_parts(last, parse, pool,
                                 groups.emplace_back(Group{end, end + 1, {}, {}, {}}).parts);
            }
            const nb::gil_scoped_release nogil;
            pool.drain();
            for (Group& group : groups) {
                if (group.parts.empty()) continue;
                group.ids = joined(group.parts);
                group.ends = {group.ids.size() / core->id_bytes};
            }
        }
        nb::list arrays;
        for (Group& group : groups) {
            const nb::object all = to_array(std::move(group.ids), core->id_bytes);
            std::size_t begin = 0;
            for (const std::size_t end : group.ends) {
                arrays.append(all[nb::slice(nb::int_(begin), nb::int_(end), nb::none())]);
                begin = end;
            }
        }
        return arrays;
    }

    nb::object encode_pretokens(const std::vector<nb::bytes>& pretokens) const {
        Reporter reporter{nb::none()};
        IdBuffer out;
        Borrowed scratch(*core, [&] { reporter(0); });
        for (const nb::bytes& pretoken : pretokens) {
            const View view = view_of(pretoken);
            core->encode_pretoken(view.data, view.size, out, *scratch);
        }
        return to_array(std::move(out), core->id_bytes);
    }

    nb::list split_tokens() const {
        Reporter reporter{nb::none()};
        Borrowed scratch(*core, [&] { reporter(0); });
        nb::list all;
        for (std::uint32_t id = 0; id < core->bpe.vocab().size(); ++id) {
            core->bpe.split(id, (*scratch).work);
            all.append(nb::cast((*scratch).work.ids));
            reporter(0);
        }
        return all;
    }

    nb::bytes decode(const nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig,
                                       nb::device::cpu>& ids) const {
        const auto& vocab = core->bpe.vocab();
        std::string text;
        for (std::size_t i = 0; i < ids.shape(0); ++i) {
            const std::int64_t id = ids.data()[i];
            if (id < 0 || static_cast<std::uint64_t>(id) >= vocab.size() ||
                vocab[static_cast<std::size_t>(id)].empty())
                throw std::out_of_range("id " + std::to_string(id) + " at position " +
                                        std::to_string(i) + " is not in the vocabulary of " +
                                        std::to_string(vocab.size()));
            text += vocab[static_cast<std::size_t>(id)];
        }
        return nb::bytes(text.data(), text.size());
    }

private:
    static constexpr std::size_t kPart = 1 << 19;
    static constexpr std::size_t kLong = 2 * kPart;  // worth several threads

    using Parts = std::deque<IdBuffer>;

    // The end of the part of the text that begins at p.
    const Byte* part_end(const Byte* p, const Byte* end, bool parse) const {
        const Specials& specials = core->looked_for(parse);
        std::size_t size = kPart;
        while (static_cast<std::size_t>(end - p) > size + specials.longest()) {
            const Byte* cut = last_border(p, p + size, end, specials);
            if (cut != p) return cut;
            size *= 2;
        }
        return end;
    }

    void encode_here(const View& view, bool parse, IdBuffer& out, Reporter& reporter) const {
        Borrowed scratch(*core, [&] { reporter(0); });
        for (const Byte* p = view.data; p < view.end();) {
            const Byte* end = part_end(p, view.end(), parse);
            p = core->encode(p, end, true, parse, out, *scratch);
            reporter(0);
        }
    }

    // Encodes a text that is known to be UTF-8, once the pool has been drained.
    void submit_parts(const View& view, bool parse, Pool& pool, Parts& parts) const {
        for (const Byte* p = view.data; p < view.end();) {
            const Byte* end = part_end(p, view.end(), parse);
            IdBuffer& part = parts.emplace_back();
            pool.submit([this, p, end, parse, &part, &pool](unsigned worker) {
                Borrowed scratch(*core, [&pool, worker] { pool.check(worker); });
                core->encode(p, end, true, parse, part, *scratch);
            });
            p = end;
        }
    }

    static IdBuffer joined(Parts& parts) {
        IdBuffer all;
        for (; !parts.empty(); parts.pop_front()) all.append(parts.front());
        return all;
    }
};

class PyStream {
public:
    PyStream(const PyEncoder& encoder, bool parse, bool replace)
        : reporter_(nb::none()),
          stream_(encoder.core, parse, replace, [this] { reporter_(0); }),
          id_bytes_(encoder.core->id_bytes) {}

    nb::object feed(nb::bytes piece) {
        const View view = view_of(piece);
        IdBuffer out;
        {
            const nb::gil_scoped_release nogil;
            stream_.feed(view.data, view.size, out);
        }
        return to_array(std::move(out), id_bytes_);
    }

    nb::object finish() {
        IdBuffer out;
        {
            const nb::gil_scoped_release nogil;
            stream_.finish(out);
        }
        return to_array(std::move(out), id_bytes_);
    }

private:
    Reporter reporter_;
    EncodeStream stream_;
    std::size_t id_bytes_;
};

class PyFileEncoder {
public:
    PyFileEncoder(const PyEncoder& encoder, int descriptor, bool parse, unsigned threads,
                  std::size_t chunk_bytes, bool replace, nb::object progress)
        : reporter_(std::move(progress)),
          descriptor_(descriptor),
          id_bytes_(encoder.core->id_bytes),
          sink_(
              encoder.core, parse, threads, chunk_bytes, replace, [this] { reporter_(total_); },
              [this](const IdBuffer& ids) { write(ids); }) {}

    void add_path(nb::bytes path) { add_file(sink_, to_string(path), total_, reporter_); }

    void add(nb::bytes piece) {
        const View view = view_of(piece);
        const nb::gil_scoped_release nogil;
        total_ += view.size;
        sink_.add(view.data, view.size);
    }

    void end_text() {
        const nb::gil_scoped_release nogil;
        sink_.end_text();
    }

    std::uint64_t finish() {
        {
            const nb::gil_scoped_release nogil;
            sink_.finish();
        }
        reporter_.report(total_);
        return written_ / id_bytes_;
    }

    std::uint64_t text_bytes() const { return total_; }

private:
    Reporter reporter_;
    int descriptor_;
    std::size_t id_bytes_;
    std::uint64_t total_ = 0, written_ = 0;
    EncodeSink sink_;

    void write(const IdBuffer& ids) {
        const Byte* p = ids.data();
        for (std::size_t left = ids.size(); left > 0;) {
            const ssize_t done = ::write(descriptor_, p, left);
            if (done < 0 && errno != EINTR) raise_errno(errno);
            if (done < 0) {
                reporter_.report(total_);
                continue;
            }
            p += done;
            left -= static_cast<std::size_t>(done);
            written_ += static_cast<std::uint64_t>(done);
        }
    }
};

}  // namespace lmlab
