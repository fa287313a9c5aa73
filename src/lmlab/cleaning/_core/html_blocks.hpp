// The text of a page in blocks, each with the elements that it stands in.
#pragma once

#include <algorithm>
#include <vector>

#include "html_scanner.hpp"

#include "html_elements.hpp"

namespace lmlab {

// A block element.
struct Node {
    int parent;
    TagGroup group;
    std::uint32_t own;        // hints of its name, class, id, role
    std::uint32_t inherited;  // of the elements around it
    std::uint32_t depth;
};

struct Block {
    std::string text;
    int node;
    std::uint32_t link_characters = 0;
    bool after_title = false;  // an h1 came before
};

struct Page {
    std::vector<Node> nodes;
    std::vector<Block> blocks;
    std::size_t depth = 0;  // of the deepest element
};

class PageReader {
public:
    PageReader(std::string_view html, const EntityTable& entities, std::size_t max_depth)
        : scanner_(html, entities), max_depth_(max_depth) {
        page_.nodes.push_back({-1, kOtherTag, 0, 0, 0});
    }

    // Read the page; reading stops where elements nest deeper than allowed.
    Page read() {
        for (;;) {
            const auto token = scanner_.next();
            if (token == HtmlScanner::Token::kEnd) break;
            if (token == HtmlScanner::Token::kText) {
                if (skipped_ == 0) put_text(scanner_.text);
            } else if (scanner_.tag.closing) {
                close_element();
            } else {
                open_element();
                page_.depth = std::max(page_.depth, stack_.size());
                if (stack_.size() > max_depth_) break;
            }
        }
        flush();
        return std::move(page_);
    }

private:
    struct Open {
        char name[16];
        std::uint8_t name_size;
        ElementKind kind;
        bool anchor, skips;
        int node;  // the innermost block element around its content

        std::string_view view() const { return {name, name_size}; }
    };

    HtmlScanner scanner_;
    const std::size_t max_depth_;
    Page page_;
    std::vector<Open> stack_;
    int anchors_ = 0, skipped_ = 0;
    std::string text_, decoded_;
    std::uint32_t link_characters_ = 0;
    bool space_ = false, title_seen_ = false;

    int node() const { return stack_.empty() ? 0 : stack_.back().node; }

    void open_element() {
        const Tag& tag = scanner_.tag;
        const Element element = element_named(tag.view());
        if (tag.view() == "br") return put_break();
        if (element.kind == kVoid) {
            if (tag.view() == "hr") flush();
            return;
        }
        if (tag.view() == "body") close_named("head");
        if (element.kind == kRaw) return scanner_.skip_raw(tag.view());
        if (element.kind == kBlock) {
            flush();
            close_implied(element);
        }
        Open open{};
        std::copy_n(tag.name, tag.name_size, open.name);
        open.name_size = tag.name_size;
        open.kind = element.kind;
        open.anchor = tag.view() == "a";
        open.skips = element.kind == kSkip || tag.hidden;
        open.node = node();
        if (element.kind == kBlock) {
            const Node& around = page_.nodes[static_cast<std::size_t>(open.node)];
            const std::uint32_t hints = hints_in(tag.view()) | hints_in(tag.classes) |
                                        hints_in(tag.id) | hints_in(tag.role) |
                                        hints_in(tag.itemprop);
            page_.nodes.push_back({open.node, element.group, hints, around.own | around.inherited,
                                   around.depth + 1});
            open.node = static_cast<int>(page_.nodes.size()) - 1;
            if (element.group == kTitle) title_seen_ = true;
        }
        anchors_ += open.anchor;
        skipped_ += open.skips;
        stack_.push_back(open);
    }

    void close_implied(Element element) {
        while (!stack_.empty() && closes(scanner_.tag.view(), element, stack_.back().view()))
            pop();
        // a paragraph also ends when it has inline elements open
        for (std::size_t i = stack_.size(); i > 0 && stack_[i - 1].kind != kSkip; --i) {
            if (stack_[i - 1].kind != kBlock) continue;
            if (stack_[i - 1].view() == "p" && closes(scanner_.tag.view(), element, "p"))
                while (stack_.size() >= i) pop();
            break;
        }
    }

    void close_element() {
        const Tag& tag = scanner_.tag;
        const Element element = element_named(tag.view());
        if (element.kind == kBlock && skipped_ == 0) flush();
        // an end tag without its element is ignored; inline ones do not reach out of a block
        for (std::size_t i = stack_.size(); i > 0; --i) {
            if (stack_[i - 1].view() == tag.view()) {
                while (stack_.size() >= i) pop();
                return;
            }
            if (element.kind == kInline && stack_[i - 1].kind == kBlock) return;
        }
    }

    void close_named(std::string_view name) {
        for (std::size_t i = stack_.size(); i > 0; --i)
            if (stack_[i - 1].view() == name)
                while (stack_.size() >= i) pop();
    }

    void pop() {
        const Open& open = stack_.back();
        if (open.kind == kBlock) flush();
        anchors_ -= open.anchor;
        skipped_ -= open.skips;
        stack_.pop_back();
    }

    // Add text with white space collapsed.
    void put_text(std::string_view source) {
        if (source.find('&') != source.npos) {
            decoded_.clear();
            scanner_.decode(source, decoded_);
            source = decoded_;
        }
        for (std::size_t i = 0; i < source.size(); ++i) {
            char c = source[i];
            if (c == '\xC2' && i + 1 < source.size() && source[i + 1] == '\xA0') c = ' ', ++i;
            if (html_space(c)) {
                space_ = true;
                continue;
            }
            if (space_ && !text_.empty() && text_.back() != '\n') text_.push_back(' ');
            space_ = false;
            text_.push_back(c);
            link_characters_ += anchors_ > 0;
        }
    }

    void put_break() {
        if (skipped_ != 0 || text_.empty()) return;
        if (text_.back() == '\n') return flush();
        text_.push_back('\n');
        space_ = false;
    }

    void flush() {
        while (!text_.empty() && text_.back() == '\n') text_.pop_back();
        if (!text_.empty())
            page_.blocks.push_back({std::move(text_), node(), link_characters_, title_seen_});
        text_.clear();
        link_characters_ = 0;
        space_ = false;
    }
};

}  // namespace lmlab
