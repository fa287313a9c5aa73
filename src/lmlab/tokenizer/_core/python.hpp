// What the bindings share: progress and Ctrl-C, errors, and bytes in and arrays out.
//
// Everything long runs without the GIL. The thread that Python called takes it back every 50 ms to
// let signal handlers run and to report progress.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <fcntl.h>
#include <unistd.h>
#include <cerrno>
#include <chrono>

#include "sinks.hpp"

namespace nb = nanobind;

namespace lmlab {

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

[[noreturn]] inline void raise_errno(int code, const char* path = nullptr) {
    const nb::gil_scoped_acquire gil;
    errno = code;
    if (path) PyErr_SetFromErrnoWithFilename(PyExc_OSError, path);
    else PyErr_SetFromErrno(PyExc_OSError);
    throw nb::python_error();
}

inline Pattern pattern_named(const std::string& name) {
    if (name == "gpt2") return Pattern::kGpt2;
    if (name == "cl100k") return Pattern::kCl100k;
    if (name == "o200k") return Pattern::kO200k;
    throw std::invalid_argument("no native pattern is called '" + name + "'");
}

inline std::string to_string(nb::bytes bytes) {
    return {bytes.c_str(), bytes.size()};
}

inline std::vector<Special> to_specials(
    const std::vector<std::pair<nb::bytes, std::uint32_t>>& tokens) {
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
inline View view_of(nb::handle text) {
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

inline void check_utf8(const View& view) {
    if (view.checked) return;
    const Byte* stop = skip_valid(view.data, view.end());
    if (stop != view.end()) throw InvalidUtf8(static_cast<std::uint64_t>(stop - view.data));
}

inline nb::object to_array(IdBuffer&& ids, std::size_t id_bytes) {
    const std::size_t count = ids.size() / id_bytes;
    Byte* data = ids.release();
    nb::capsule owner(data, [](void* p) noexcept { std::free(p); });
    if (id_bytes == 2)
        return nb::cast(nb::ndarray<nb::numpy, std::uint16_t, nb::ndim<1>>(data, {count}, owner));
    return nb::cast(nb::ndarray<nb::numpy, std::uint32_t, nb::ndim<1>>(data, {count}, owner));
}

// Reads a file into a sink and reports the bytes of all files so far.
inline void add_file(TextSink& sink, const std::string& path, std::uint64_t& total,
                     Reporter& reporter) {
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

}  // namespace lmlab
