// Python bindings of the native core of cleaning; lmlab/cleaning/native.py describes them.
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unordered_map.h>
#include <nanobind/stl/vector.h>

#include "deduplication.hpp"
#include "extractor.hpp"
#include "statistics.hpp"

using namespace lmlab;

namespace {

nb::list to_list(const Spans& spans) {
    nb::list list;
    for (const Span span : spans) list.append(nb::make_tuple(span.begin, span.end));
    return list;
}

nb::tuple gopher(const Statistics& statistics, const nb::str& text) {
    const GopherScores s =
        with_text(text, [&](auto characters) { return statistics.gopher(characters); });
    return nb::make_tuple(s.words, s.mean_word_length, s.hash_ratio, s.ellipsis_ratio,
                          s.bullet_lines, s.ellipsis_lines, s.alphabetic_words, s.stop_words);
}

nb::tuple fineweb(const Statistics& statistics, const nb::str& text, std::size_t short_length) {
    const FineWebScores s = with_text(
        text, [&](auto characters) { return statistics.fineweb(characters, short_length); });
    return nb::make_tuple(s.lines, s.punctuated_lines, s.short_lines, s.duplicate_line_characters,
                          s.newline_ratio);
}

nb::tuple repetition_of(const nb::str& text, const std::vector<std::size_t>& top,
                        const std::vector<std::size_t>& duplicate) {
    const RepetitionScores s =
        with_text(text, [&](auto characters) { return repetition(characters, top, duplicate); });
    return nb::make_tuple(s.characters, s.duplicate_paragraphs, s.duplicate_paragraph_characters,
                          s.duplicate_lines, s.duplicate_line_characters, s.top_ngrams,
                          s.duplicate_ngrams);
}

nb::list words(const nb::str& text) {
    return to_list(with_text(text, [](auto characters) { return split_words(characters); }));
}

nb::list duplicate_parts(const nb::str& text, bool paragraphs) {
    return to_list(with_text(text, [&](auto characters) {
        Spans found;
        find_duplicates(characters, hashes_of(characters),
                        paragraphs ? paragraphs_of(characters) : lines_of(characters), &found);
        return found;
    }));
}

nb::list duplicate_ngrams(const nb::str& text, std::size_t n) {
    return to_list(with_text(text, [&](auto characters) {
        Spans found;
        const Spans parts = split_words(characters);
        Ngrams(characters, parts, false).duplicates(n, &found);
        return found;
    }));
}

nb::list top_ngram(const nb::str& text, std::size_t n) {
    return to_list(with_text(text, [&](auto characters) {
        const Spans parts = split_words(characters);
        Ngrams ngrams(characters, parts, true);
        Span top{0, 0};
        return ngrams.top(n, &top) == 0 ? Spans{} : ngrams.occurrences(n, top);
    }));
}

std::string_view view_of(const nb::bytes& html) { return {html.c_str(), html.size()}; }

nb::tuple extract(const Extractor& extractor, const nb::bytes& html, std::size_t max_depth) {
    const Page page = extractor.read(view_of(html), max_depth);
    return nb::make_tuple(page.depth,
                          page.depth > max_depth ? std::string() : extractor.text(page));
}

nb::list blocks(const Extractor& extractor, const nb::bytes& html, bool context) {
    const Page page = extractor.read(view_of(html), std::size_t{1} << 10);
    const std::vector<Features> features = extractor.features(page, context);
    nb::list list;
    for (std::size_t i = 0; i < page.blocks.size(); ++i)
        list.append(nb::make_tuple(page.blocks[i].text, features[i]));
    return list;
}

}  // namespace

NB_MODULE(_core, m) {
    m.doc() = "Native core of lmlab.cleaning.";
    nb::set_leak_warnings(false);  // steps may live until the interpreter ends
    nb::class_<Statistics>(m, "Statistics")
        .def(nb::init<const nb::str&, const nb::str&, const std::vector<nb::str>&>())
        .def("gopher", &gopher)
        .def("fineweb", &fineweb)
        .def("sentences", [](const Statistics& statistics, const nb::str& text) {
            return with_text(text,
                             [&](auto characters) { return statistics.sentences(characters); });
        });
    m.def("repetition", &repetition_of);
    m.def("words", &words);
    m.def("duplicate_parts", &duplicate_parts);
    m.def("duplicate_ngrams", &duplicate_ngrams);
    m.def("top_ngram", &top_ngram);
    dedup::bind(m);
    nb::class_<Extractor>(m, "Extractor")
        .def(nb::init<EntityTable, Features, Features>())
        .def("extract", &extract)
        .def("blocks", &blocks);
    m.def("html_depth", [](const nb::bytes& html, std::size_t max_depth) {
        return PageReader(view_of(html), {}, max_depth).read().depth;
    });
}
