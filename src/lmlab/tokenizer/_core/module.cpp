// Python bindings of the tokenizer's native core; lmlab/tokenizer/native.py describes them.
//
// Everything long runs without the GIL. The thread that Python called takes it back every 50 ms to
// let signal handlers run (Ctrl-C) and to report progress.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <unistd.h>

#include "sinks.hpp"

namespace nb = nanobind;
using namespace lmlab;

namespace {

class Reporter {
public:
    explicit Reporter(nb::object progress) : progress_(std::move(progress)) {}

    void operator()(std::uint64_t done) {
        const auto now = std::chrono::steady_clock::now();
        if (now - last_ >= std::chrono::milliseconds(50)) report(done);
    }

    void report(std::uint64_t done) {
        const nb::gil_scoped_acquire gil;
        if (PyErr_CheckSignals() != 0) throw nb::python_error();
        if (!progress_.is_none()) progress_(done);
        last_ = std::chrono::steady_clock::now();
    }

private:
    nb::object progress_;
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

[[noreturn]] void raise_errno(int code, const char* path = nullptr) {
    const nb::gil_scoped_acquire gil;
    errno = code;
    if (path) PyErr_SetFromErrnoWithFilename(PyExc_OSError, path);
    else PyErr_SetFromErrno(PyExc_OSError);
    throw nb::python_error();
}

Pattern pattern_named(const std::string& name) {
    if (name == "gpt2") return Pattern::kGpt2;
    if (name == "cl100k") return Pattern::kCl100k;
    if (name == "o200k") return Pattern::kO200k;
    throw std::invalid_argument("no native pattern is called '" + name + "'");
}

std::string to_string(nb::bytes bytes) { return {bytes.c_str(), bytes.size()}; }

std::vector<Special> to_specials(const std::vector<std::pair<nb::bytes, std::uint32_t>>& tokens) {
    std::vector<Special> specials;
    for (const auto& [text, id] : tokens) {
        if (text.size() == 0) throw std::invalid_argument("a special token is empty");
        specials.push_back({to_string(text), id});
    }
    return specials;
}

struct View {
    const Byte* data;
    std::size_t size;
    bool checked;  // known to be UTF-8
    const Byte* end() const { return data + size; }
};

// The UTF-8 of a str or the bytes of bytes; valid as long as the object.
View view_of(nb::handle text) {
    if (PyUnicode_Check(text.ptr())) {
        Py_ssize_t size;
        const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
        if (!data) throw nb::python_error();
        return {reinterpret_cast<const Byte*>(data), static_cast<std::size_t>(size), true};
    }
    if (PyBytes_Check(text.ptr()))
        return {reinterpret_cast<const Byte*>(PyBytes_AS_STRING(text.ptr())),
                static_cast<std::size_t>(PyBytes_GET_SIZE(text.ptr())), false};
    throw nb::type_error("text must be str or bytes");
}

void check_utf8(const View& view) {
    if (view.checked) return;
    const Byte* stop = skip_valid(view.data, view.end());
    if (stop != view.end()) throw InvalidUtf8(static_cast<std::uint64_t>(stop - view.data));
}

nb::object to_array(IdBuffer&& ids, std::size_t id_bytes) {
    const std::size_t count = ids.size() / id_bytes;
    Byte* data = ids.release();
    nb::capsule owner(data, [](void* p) noexcept { std::free(p); });
    if (id_bytes == 2)
        return nb::cast(nb::ndarray<nb::numpy, std::uint16_t, nb::ndim<1>>(data, {count}, owner));
    return nb::cast(nb::ndarray<nb::numpy, std::uint32_t, nb::ndim<1>>(data, {count}, owner));
}

// Reads a file into a sink and reports the bytes of all files so far.
void add_file(TextSink& sink, const std::string& path, std::uint64_t& total, Reporter& reporter) {
    const nb::gil_scoped_release nogil;
    struct File {
        int descriptor;
        ~File() {
            if (descriptor >= 0) ::close(descriptor);
        }
    } file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (file.descriptor < 0) raise_errno(errno, path.c_str());
    std::vector<Byte> buffer(1 << 18);
    for (;;) {
        const ssize_t got = ::read(file.descriptor, buffer.data(), buffer.size());
        if (got < 0 && errno != EINTR) raise_errno(errno, path.c_str());
        if (got == 0) break;
        if (got > 0) {
            total += static_cast<std::uint64_t>(got);
            sink.add(buffer.data(), static_cast<std::size_t>(got));
        }
        reporter(total);
    }
}

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

    void add_path(const std::string& path) { add_file(sink(), path, total_, reporter_); }

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

    std::vector<std::pair<nb::bytes, nb::bytes>> train(std::size_t num_merges, nb::object progress) {
        Reporter reporter(std::move(progress));
        std::unique_ptr<SharedCounts> counts = finish();
        reporter_.report(total_);
        return num_merges + 256 < 65534 ? train_with<std::uint16_t>(std::move(counts), num_merges, threads_, reporter)
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

class PyEncoder {
public:
    PyEncoder(const std::vector<nb::bytes>& vocab,
              const std::optional<std::vector<std::pair<nb::bytes, nb::bytes>>>& merges,
              const std::vector<std::pair<nb::bytes, std::uint32_t>>& specials,
              const std::string& pattern) {
        std::vector<std::string> tokens;
        tokens.reserve(vocab.size());
        for (const nb::bytes& token : vocab) tokens.push_back(to_string(token));
        std::vector<std::pair<std::string, std::string>> pairs;
        if (merges)
            for (const auto& [a, b] : *merges) pairs.emplace_back(to_string(a), to_string(b));
        core = std::make_shared<Encoder>(std::move(tokens), merges ? &pairs : nullptr,
                                         to_specials(specials), pattern_named(pattern));
    }

    std::shared_ptr<Encoder> core;

    nb::object encode(nb::object text, unsigned threads) const {
        Reporter reporter{nb::none()};
        const View view = view_of(text);
        IdBuffer out;
        {
            const nb::gil_scoped_release nogil;
            check_utf8(view);
            if (threads <= 1 || view.size < 2 * kPart) encode_here(view, out, reporter);
            else encode_parallel(view, threads, out, reporter);
        }
        return to_array(std::move(out), core->id_bytes);
    }

    // Texts of a group share one array, of which each gets a part: arrays of their own would take
    // longer than the encoding of a short text.
    nb::list encode_batch(nb::list texts, unsigned threads) const {
        struct Group {
            std::size_t begin, end;
            IdBuffer ids;
            std::vector<std::size_t> ends;  // in ids, of each text
        };
        Reporter reporter{nb::none()};
        std::vector<View> views;
        views.reserve(texts.size());
        for (nb::handle text : texts) views.push_back(view_of(text));
        std::deque<Group> groups;
        {
            const nb::gil_scoped_release nogil;
            Pool pool(threads, [&] { reporter(0); });
            for (std::size_t begin = 0, end = 0; begin < views.size(); begin = end) {
                for (std::size_t bytes = 0; end < views.size() && bytes < kPart / 4; ++end)
                    bytes += views[end].size + 64;
                Group& group = groups.emplace_back(Group{begin, end, {}, {}});
                pool.submit([&](unsigned) { encode_group(views, group.begin, group.end, group.ids, group.ends); });
            }
            pool.drain();
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
        IdBuffer out;
        Borrowed scratch(*core);
        for (const nb::bytes& pretoken : pretokens) {
            const View view = view_of(pretoken);
            core->encode_pretoken(view.data, view.size, out, *scratch);
        }
        return to_array(std::move(out), core->id_bytes);
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

    // The end of the part of the text that begins at p.
    const Byte* part_end(const Byte* p, const Byte* end) const {
        std::size_t size = kPart;
        while (static_cast<std::size_t>(end - p) > size + core->specials.longest()) {
            const Byte* cut = last_border(p, p + size, end, core->specials);
            if (cut != p) return cut;
            size *= 2;
        }
        return end;
    }

    void encode_group(const std::vector<View>& views, std::size_t begin, std::size_t end,
                      IdBuffer& ids, std::vector<std::size_t>& ends) const {
        Borrowed scratch(*core);
        for (std::size_t i = begin; i < end; ++i) {
            check_utf8(views[i]);
            core->encode(views[i].data, views[i].end(), true, ids, *scratch);
            ends.push_back(ids.size() / core->id_bytes);
        }
    }

    void encode_here(const View& view, IdBuffer& out, Reporter& reporter) const {
        Borrowed scratch(*core, [&] { reporter(0); });
        for (const Byte* p = view.data; p < view.end();) {
            const Byte* end = part_end(p, view.end());
            p = core->encode(p, end, true, out, *scratch);
            reporter(0);
        }
    }

    void encode_parallel(const View& view, unsigned threads, IdBuffer& out, Reporter& reporter) const {
        std::deque<IdBuffer> parts;
        Pool pool(threads, [&] { reporter(0); });
        for (const Byte* p = view.data; p < view.end();) {
            const Byte* end = part_end(p, view.end());
            IdBuffer& part = parts.emplace_back();
            pool.submit([this, p, end, &part](unsigned) {
                Borrowed scratch(*core);
                core->encode(p, end, true, part, *scratch);
            });
            p = end;
        }
        pool.drain();
        for (IdBuffer& part : parts) {
            out.append(part);
            part = {};
        }
    }
};

class PyStream {
public:
    PyStream(const PyEncoder& encoder, bool replace)
        : stream_(encoder.core, replace), id_bytes_(encoder.core->id_bytes) {}

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
    EncodeStream stream_;
    std::size_t id_bytes_;
};

class PyFileEncoder {
public:
    PyFileEncoder(const PyEncoder& encoder, int descriptor, unsigned threads,
                  std::size_t chunk_bytes, bool replace, nb::object progress)
        : reporter_(std::move(progress)), descriptor_(descriptor), id_bytes_(encoder.core->id_bytes),
          sink_(encoder.core, threads, chunk_bytes, replace, [this] { reporter_(total_); },
                [this](const IdBuffer& ids) { write(ids); }) {}

    void add_path(const std::string& path) { add_file(sink_, path, total_, reporter_); }

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

nb::list split(nb::bytes text, const std::string& pattern, const std::vector<nb::bytes>& specials) {
    struct Collect {
        nb::list found;
        void pretokens(const Byte* p, const Byte* const* ends, std::size_t count) {
            for (std::size_t i = 0; i < count; p = ends[i++])
                found.append(nb::bytes(p, static_cast<std::size_t>(ends[i] - p)));
        }
        void special(const Special&) {}
    } collect;
    std::vector<std::pair<nb::bytes, std::uint32_t>> tokens;
    for (const nb::bytes& special : specials) tokens.emplace_back(special, 0);
    const View view = view_of(text);
    check_utf8(view);
    segment(pattern_named(pattern), view.data, view.end(), true, Specials(to_specials(tokens)), collect);
    return collect.found;
}

}  // namespace

NB_MODULE(_core, m) {
    m.doc() = "Native core of lmlab.tokenizer.";
    nb::exception<InvalidUtf8>(m, "InvalidUtf8", PyExc_ValueError);
    m.def("split", &split);
    nb::class_<PyCounter>(m, "Counter")
        .def(nb::init<const std::string&, const std::vector<nb::bytes>&, unsigned, std::size_t, bool,
                      nb::object>(),
             nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none())
        .def("add_file", &PyCounter::add_path)
        .def("add", &PyCounter::add)
        .def("end_text", &PyCounter::end_text)
        .def("add_pretokens", &PyCounter::add_pretokens)
        .def("counts", &PyCounter::counts)
        .def("train", &PyCounter::train, nb::arg(), nb::arg().none());
    nb::class_<PyEncoder>(m, "Encoder")
        .def(nb::init<const std::vector<nb::bytes>&,
                      const std::optional<std::vector<std::pair<nb::bytes, nb::bytes>>>&,
                      const std::vector<std::pair<nb::bytes, std::uint32_t>>&, const std::string&>(),
             nb::arg(), nb::arg().none(), nb::arg(), nb::arg())
        .def("encode", &PyEncoder::encode)
        .def("encode_batch", &PyEncoder::encode_batch)
        .def("encode_pretokens", &PyEncoder::encode_pretokens)
        .def("decode", &PyEncoder::decode);
    nb::class_<PyStream>(m, "EncoderStream")
        .def(nb::init<const PyEncoder&, bool>())
        .def("feed", &PyStream::feed)
        .def("finish", &PyStream::finish);
    nb::class_<PyFileEncoder>(m, "FileEncoder")
        .def(nb::init<const PyEncoder&, int, unsigned, std::size_t, bool, nb::object>(), nb::arg(),
             nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none())
        .def("add_file", &PyFileEncoder::add_path)
        .def("add", &PyFileEncoder::add)
        .def("end_text", &PyFileEncoder::end_text)
        .def("finish", &PyFileEncoder::finish);
}
