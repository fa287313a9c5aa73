// Python bindings of the tokenizer's native core; lmlab/tokenizer/native.py describes them.
#include "py_encoding.hpp"
#include "py_training.hpp"

using namespace lmlab;

namespace {

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
    segment(pattern_named(pattern), view.data, view.end(), true, Specials(to_specials(tokens)),
            collect);
    return collect.found;
}

class PySpecials {
public:
    explicit PySpecials(const std::vector<nb::bytes>& tokens) : specials_(to_list(tokens)) {}

    // Where the first special token at or after `start` begins and its index, or -1; without one,
    // how far the text is certain to hold none, whatever follows unless `final`.
    std::pair<std::size_t, std::int64_t> find(nb::bytes text, std::size_t start, bool final) const {
        const View view = view_of(text);
        const auto match = specials_.find(view.data + std::min(start, view.size), view.end(), final);
        return {static_cast<std::size_t>(match.begin - view.data),
                match.token == nullptr ? -1 : std::int64_t{match.token->id}};
    }

private:
    Specials specials_;

    static std::vector<Special> to_list(const std::vector<nb::bytes>& tokens) {
        std::vector<std::pair<nb::bytes, std::uint32_t>> pairs;
        for (std::size_t i = 0; i < tokens.size(); ++i)
            pairs.emplace_back(tokens[i], static_cast<std::uint32_t>(i));
        return to_specials(pairs);
    }
};

}  // namespace

NB_MODULE(_core, m) {
    m.doc() = "Native core of lmlab.tokenizer.";
    nb::exception<InvalidUtf8>(m, "InvalidUtf8", PyExc_ValueError);
    nb::exception<NoThread>(m, "NoThread", nb::module_::import_("lmlab.errors").attr("UserError"));
    m.def("split", &split);
    nb::class_<PySpecials>(m, "Specials")
        .def(nb::init<const std::vector<nb::bytes>&>())
        .def("find", &PySpecials::find);
    nb::class_<PyCounter>(m, "Counter")
        .def(nb::init<const std::string&, const std::vector<nb::bytes>&, unsigned, std::size_t,
                      bool, nb::object>(),
             nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none())
        .def("add_file", &PyCounter::add_path)
        .def("add", &PyCounter::add)
        .def("end_text", &PyCounter::end_text)
        .def("add_texts", &PyCounter::add_texts)
        .def("add_pretokens", &PyCounter::add_pretokens)
        .def("counts", &PyCounter::counts)
        .def("train", &PyCounter::train, nb::arg(), nb::arg().none());
    nb::class_<PyEncoder>(m, "Encoder")
        .def(
            nb::init<const std::vector<nb::bytes>&,
                     const std::optional<std::vector<std::pair<nb::bytes, nb::bytes>>>&,
                     const std::vector<std::pair<nb::bytes, std::uint32_t>>&,
                     const std::vector<std::uint32_t>&, const std::string&, bool>(),
            nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg())
        .def("encode", &PyEncoder::encode)
        .def("encode_batch", &PyEncoder::encode_batch)
        .def("encode_pretokens", &PyEncoder::encode_pretokens)
        .def("split_tokens", &PyEncoder::split_tokens)
        .def("decode", &PyEncoder::decode);
    nb::class_<PyStream>(m, "EncoderStream")
        .def(nb::init<const PyEncoder&, bool, bool>())
        .def("feed", &PyStream::feed)
        .def("finish", &PyStream::finish);
    nb::class_<PyFileEncoder>(m, "FileEncoder")
        .def(nb::init<const PyEncoder&, int, bool, unsigned, std::size_t, bool, nb::object>(),
             nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
             nb::arg().none())
        .def("add_file", &PyFileEncoder::add_path)
        .def("add", &PyFileEncoder::add)
        .def("end_text", &PyFileEncoder::end_text)
        .def("finish", &PyFileEncoder::finish)
        .def_prop_ro("text_bytes", &PyFileEncoder::text_bytes);
}
