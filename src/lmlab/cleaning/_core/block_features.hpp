// What the block classifier sees of each block: its text, its elements, its neighbours, its page.
#pragma once

#include <cmath>

#include "html_blocks.hpp"

namespace lmlab {

using Features = std::vector<float>;

inline float logarithm(double x) { return static_cast<float>(std::log1p(x)); }

struct BlockShape {
    std::uint32_t words = 0, characters = 0, commas = 0, digits = 0, capitals = 0, bars = 0;
    bool ends_sentence = false, ends_in_colon = false, begins_high = false, quotes = false;
    float link_density = 0;

    explicit BlockShape(const Block& block) {
        const std::string& text = block.text;
        bool inside = false;
        std::uint32_t ideographs = 0;  // and kana: about two make a word
        for (std::size_t i = 0; i < text.size(); ++i) {
            const char c = text[i];
            const bool space = html_space(c);
            words += !space && !inside;
            inside = !space;
            characters += !space;
            commas += c == ',' || text.compare(i, 3, "\xEF\xBC\x8C") == 0;  // ，
            digits += ascii_digit(c);
            capitals += c >= 'A' && c <= 'Z';
            bars += c == '|' || c == '>' || c == '/';
            ideographs += static_cast<unsigned char>(c) >= 0xE3 &&
                          static_cast<unsigned char>(c) <= 0xE9;
        }
        words += ideographs / 2;
        std::size_t last = text.size();
        while (last > 1 && (text[last - 1] == '"' || text[last - 1] == ')' ||
                            static_cast<unsigned char>(text[last - 1]) >= 0x80))
            --last;
        const char end = text[last - 1];
        const std::string_view tail =
            std::string_view(text).substr(text.size() < 3 ? 0 : text.size() - 3);
        ends_sentence = end == '.' || end == '!' || end == '?' || tail == "\xE3\x80\x82" ||
                        tail == "\xEF\xBC\x81" || tail == "\xEF\xBC\x9F";  // 。！？
        ends_in_colon = end == ':';
        begins_high = text[0] >= 'A' && text[0] <= 'Z';
        quotes = text[0] == '"' || text.compare(0, 3, "\xE2\x80\x9C") == 0;
        link_density = static_cast<float>(block.link_characters) /
                       static_cast<float>(std::max(1u, characters));
    }
    // Characters of running text: what an article mostly is.
    float running() const {
        return link_density < 0.4f && words >= 10 && (ends_sentence || commas > 0)
                   ? static_cast<float>(characters)
                   : 0;
    }
};

// Sums of a value over the blocks in each element, elements inside included.
inline std::vector<float> sums_by_node(const Page& page, const std::vector<float>& values,
                                       bool inside) {
    std::vector<float> sums(page.nodes.size());
    for (std::size_t i = 0; i < page.blocks.size(); ++i)
        sums[static_cast<std::size_t>(page.blocks[i].node)] += values[i];
    if (inside)
        for (std::size_t node = page.nodes.size(); node-- > 1;)
            sums[static_cast<std::size_t>(page.nodes[node].parent)] += sums[node];
    return sums;
}

// The element that holds most of a value: from the page down while one child has most of it.
inline std::size_t main_node(const Page& page, const std::vector<float>& sums, float share) {
    std::size_t best = 0;
    for (std::size_t node = 1; node < page.nodes.size(); ++node)  // parents come first
        if (static_cast<std::size_t>(page.nodes[node].parent) == best && sums[node] > 0 &&
            sums[node] >= share * sums[0])
            best = node;
    return best;
}

inline std::vector<bool> inside_node(const Page& page, std::size_t root) {
    std::vector<bool> inside(page.nodes.size());
    inside[root] = true;
    for (std::size_t node = 1; node < page.nodes.size(); ++node)
        if (inside[static_cast<std::size_t>(page.nodes[node].parent)]) inside[node] = true;
    return inside;
}

inline int parent_of(const Page& page, int node) {
    return std::max(0, page.nodes[static_cast<std::size_t>(node)].parent);
}

inline void add_text_features(Features& x, const BlockShape& shape) {
    const float words = static_cast<float>(std::max(1u, shape.words));
    const float characters = static_cast<float>(std::max(1u, shape.characters));
    x.insert(x.end(),
             {1.0f, logarithm(shape.words), shape.words <= 3 ? 1.0f : 0, shape.words > 8 ? 1.0f : 0,
              shape.words > 20 ? 1.0f : 0, shape.words > 50 ? 1.0f : 0, shape.link_density,
              shape.link_density > 0.9f ? 1.0f : 0, shape.link_density > 0 ? 1.0f : 0,
              std::min(1.0f, 5 * static_cast<float>(shape.commas) / words),
              static_cast<float>(shape.digits) / characters,
              static_cast<float>(shape.capitals) / characters,
              std::min(1.0f, static_cast<float>(shape.bars) / words),
              shape.ends_sentence ? 1.0f : 0, shape.ends_in_colon ? 1.0f : 0,
              shape.begins_high ? 1.0f : 0, shape.quotes ? 1.0f : 0,
              shape.running() > 0 ? 1.0f : 0});
}

inline void add_neighbour(Features& x, const std::vector<BlockShape>& shapes, std::size_t i,
                          bool exists) {
    if (!exists) return x.insert(x.end(), {1.0f, 0, 0, 0, 0}), void();
    x.insert(x.end(), {0, logarithm(shapes[i].words), shapes[i].link_density,
                       shapes[i].ends_sentence ? 1.0f : 0, shapes[i].running() > 0 ? 1.0f : 0});
}

// The features of each block that its page's markup and text give.
inline std::vector<Features> page_features(const Page& page) {
    const std::size_t count = page.blocks.size();
    std::vector<BlockShape> shapes(page.blocks.begin(), page.blocks.end());
    std::vector<float> running(count), characters(count), links(count);
    for (std::size_t i = 0; i < count; ++i) {
        running[i] = shapes[i].running();
        characters[i] = static_cast<float>(shapes[i].characters);
        links[i] = static_cast<float>(page.blocks[i].link_characters);
    }
    const auto all = sums_by_node(page, running, true), text = sums_by_node(page, characters, true),
               linked = sums_by_node(page, links, true);
    const std::vector<bool> in_main = inside_node(page, main_node(page, all, 0.5f));
    const std::vector<bool> in_wide = inside_node(page, main_node(page, all, 0.8f));
    const float total = std::max(1.0f, all[0]);
    float before = 0;
    std::vector<Features> features(count);
    for (std::size_t i = 0; i < count; ++i) {
        Features& x = features[i];
        const int own = page.blocks[i].node, parent = parent_of(page, own),
                  grandparent = parent_of(page, parent);
        const Node& node = page.nodes[static_cast<std::size_t>(own)];
        add_text_features(x, shapes[i]);
        for (int group = 0; group < kTagGroups; ++group) x.push_back(node.group == group);
        const std::uint32_t parents = page.nodes[static_cast<std::size_t>(parent)].own;
        for (int hint = 0; hint < kHints; ++hint) {
            x.push_back((node.own | parents) >> hint & 1);
            x.push_back(node.inherited >> hint & 1);
        }
        add_neighbour(x, shapes, i - 1, i > 0);
        add_neighbour(x, shapes, i + 1, i + 1 < count);
        const float position = static_cast<float>(i) / static_cast<float>(count);
        x.insert(x.end(), {position, position * position, before / total,
                           before == 0 ? 1.0f : 0, before >= total - 0.5f ? 1.0f : 0,
                           page.blocks[i].after_title ? 1.0f : 0,
                           std::min(2.0f, static_cast<float>(node.depth) / 15)});
        for (const int around : {own, parent, grandparent}) {
            const auto at = static_cast<std::size_t>(around);
            x.push_back(all[at] / total);
            x.push_back(logarithm(all[at]));
            x.push_back(linked[at] / std::max(1.0f, text[at]));
        }
        x.push_back(in_main[static_cast<std::size_t>(own)]);
        x.push_back(in_wide[static_cast<std::size_t>(own)]);
        before += running[i];
    }
    return features;
}

// The features of each block that the first classifier's probabilities of its surroundings give.
inline std::vector<Features> context_features(const Page& page, std::vector<Features> features,
                                              const std::vector<float>& probabilities) {
    const std::size_t count = page.blocks.size();
    std::vector<float> good(count), size(count);
    for (std::size_t i = 0; i < count; ++i) {
        size[i] = static_cast<float>(page.blocks[i].text.size());
        good[i] = probabilities[i] * size[i];
    }
    const auto sums = sums_by_node(page, good, true), sizes = sums_by_node(page, size, true);
    const std::vector<bool> in_main = inside_node(page, main_node(page, sums, 0.6f));
    const auto at = [&](std::size_t i, int step) {
        const auto j = static_cast<std::ptrdiff_t>(i) + step;
        return j < 0 || j >= static_cast<std::ptrdiff_t>(count)
                   ? 0.0f
                   : probabilities[static_cast<std::size_t>(j)];
    };
    float before = 0;
    for (std::size_t i = 0; i < count; ++i) {
        Features& x = features[i];
        const float p = probabilities[i];
        x.insert(x.end(), {p, p * p, std::log((p + 1e-4f) / (1.0001f - p))});
        float left = 0, right = 0;
        for (const int step : {1, 2, 3}) {
            x.push_back(at(i, -step));
            x.push_back(at(i, step));
            left = std::max(left, at(i, -step));
            right = std::max(right, at(i, step));
        }
        x.insert(x.end(), {left * right, std::min(left, right), left, right});
        const int own = page.blocks[i].node, parent = parent_of(page, own),
                  grandparent = parent_of(page, parent);
        for (const int around : {own, parent, grandparent}) {
            const auto node = static_cast<std::size_t>(around);
            x.push_back(sums[node] / std::max(1.0f, sizes[node]));
            x.push_back(sums[node] / std::max(1.0f, sums[0]));
        }
        x.push_back(in_main[static_cast<std::size_t>(own)]);
        x.push_back(before / std::max(1.0f, sums[0]));
        x.push_back(logarithm(sums[0]));
        before += good[i];
    }
    return features;
}

}  // namespace lmlab
