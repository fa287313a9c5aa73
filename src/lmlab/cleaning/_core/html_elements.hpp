// What the extractor knows about elements: how they nest, and what their names and classes hint at.
#pragma once

#include <array>
#include <string_view>
#include <unordered_map>

namespace lmlab {

enum ElementKind : std::uint8_t {
    kInline,  // part of the text around it
    kBlock,   // its text is a block of its own
    kVoid,    // has no content
    kSkip,    // its content is no text of the page
    kRaw,     // as kSkip, and its content is no markup
};

// Tags that the block classifier tells apart.
enum TagGroup : std::uint8_t {
    kOtherTag, kParagraph, kHeading, kListItem, kDivision, kCell, kQuote, kPre, kCaption, kTitle,
    kTagGroups,
};

struct Element {
    ElementKind kind = kInline;
    TagGroup group = kOtherTag;
};

inline Element element_named(std::string_view name) {
    static const std::unordered_map<std::string_view, Element> table = [] {
        std::unordered_map<std::string_view, Element> elements;
        const auto add = [&](ElementKind kind, std::initializer_list<std::string_view> names) {
            for (const auto name : names) elements[name].kind = kind;
        };
        add(kBlock, {"html", "body", "p", "div", "section", "article", "main", "header", "footer",
                     "nav", "aside", "ul", "ol", "li", "dl", "dt", "dd", "table", "thead", "tbody",
                     "tfoot", "tr", "td", "th", "caption", "blockquote", "pre", "figure",
                     "figcaption", "h1", "h2", "h3", "h4", "h5", "h6", "address", "form",
                     "fieldset", "legend", "details", "summary", "hgroup", "center", "dialog",
                     "menu", "picture", "video", "audio", "label"});
        add(kVoid, {"br", "hr", "img", "input", "meta", "link", "area", "base", "col", "embed",
                    "source", "track", "wbr", "param"});
        add(kSkip, {"head", "svg", "math", "button", "select", "object", "canvas", "map",
                    "template", "noscript", "datalist"});
        add(kRaw, {"script", "style", "title", "textarea", "iframe", "xmp", "noembed",
                   "noframes"});
        const auto group = [&](TagGroup of, std::initializer_list<std::string_view> names) {
            for (const auto name : names) elements[name].group = of;
        };
        group(kParagraph, {"p"});
        group(kHeading, {"h2", "h3", "h4", "h5", "h6"});
        group(kTitle, {"h1"});
        group(kListItem, {"li", "dt", "dd"});
        group(kDivision, {"div", "section", "article", "main", "body"});
        group(kCell, {"td", "th", "tr", "table"});
        group(kQuote, {"blockquote"});
        group(kPre, {"pre"});
        group(kCaption, {"figcaption", "caption"});
        return elements;
    }();
    const auto found = table.find(name);
    if (found != table.end()) return found->second;
    return {name.find('-') == name.npos ? kInline : kBlock, kOtherTag};  // custom elements
}

// Whether an opening tag closes an open element of that name, whose end tag may be left out.
inline bool closes(std::string_view opened, Element element, std::string_view open) {
    if (open == "p") return element.kind == kBlock && opened != "label" && opened != "picture";
    if (open == "li") return opened == "li";
    if (open == "dt" || open == "dd") return opened == "dt" || opened == "dd";
    if (open == "td" || open == "th") return opened == "td" || opened == "th" || opened == "tr";
    if (open == "tr") return opened == "tr" || opened == "tbody";
    return false;
}

// What words in tag names, classes, ids and roles hint at.
enum Hint : std::uint8_t {
    kArticle, kBody, kContent, kNavigation, kHeader, kFooter, kAside, kComment, kRelated, kShare,
    kPromotion, kMeta, kLegal, kForm, kMedia, kTags, kModal, kIntroduction, kHints,
};

inline int hint_of(std::string_view word) {
    static const std::unordered_map<std::string_view, int> table = [] {
        std::unordered_map<std::string_view, int> words;
        const auto add = [&](Hint hint, std::initializer_list<std::string_view> names) {
            for (const auto name : names) words[name] = hint;
        };
        add(kArticle, {"article", "story", "post", "entry", "articles", "blogpost", "newsarticle",
                       "main", "hentry"});
        add(kBody, {"body", "articlebody", "storybody", "postbody", "paragraph", "text",
                    "richtext", "copy", "prose", "para"});
        add(kContent, {"content", "postcontent", "entrycontent", "maincontent", "page",
                       "singlecontent"});
        add(kNavigation, {"nav", "navigation", "menu", "navbar", "breadcrumb", "breadcrumbs",
                          "topbar", "menubar", "submenu", "pagination", "pager", "toc", "skip",
                          "sitemap", "tabs", "dropdown"});
        add(kHeader, {"header", "head", "masthead", "banner", "hero", "top"});
        add(kFooter, {"footer", "foot", "bottom", "colophon", "contentinfo"});
        add(kAside, {"aside", "sidebar", "side", "rail", "widget", "widgets", "complementary",
                     "secondary", "right", "left", "column"});
        add(kComment, {"comment", "comments", "disqus", "reply", "respond", "discussion",
                       "commentlist", "livefyre", "replies", "forum"});
        add(kRelated, {"related", "recommended", "recommendations", "recommendation", "more",
                       "trending", "popular", "latest", "recent", "most", "read", "similar",
                       "outbrain", "taboola", "next", "previous", "prev", "also", "teaser", "card",
                       "cards", "list", "feed", "carousel", "slider", "headlines", "promo",
                       "river"});
        add(kShare, {"share", "social", "sharing", "facebook", "twitter", "follow", "addthis",
                     "sharedaddy", "buttons", "button", "toolbar", "tools", "icons", "like"});
        add(kPromotion, {"ad", "ads", "advert", "advertisement", "sponsored", "sponsor",
                         "promotion", "newsletter", "subscribe", "subscription", "signup",
                         "paywall", "cta", "offer", "dfp", "shop", "product", "donate", "email",
                         "adslot", "marketing", "membership", "partner"});
        add(kMeta, {"meta", "byline", "author", "authors", "date", "time", "timestamp",
                    "published", "info", "dateline", "bio", "profile", "details", "credits",
                    "source", "publish", "updated", "avatar", "contributor"});
        add(kLegal, {"copyright", "legal", "disclaimer", "cookie", "cookies", "privacy", "gdpr",
                     "consent", "terms", "policy", "notice"});
        add(kForm, {"form", "search", "login", "input", "signin", "register", "field"});
        add(kMedia, {"caption", "figcaption", "figure", "image", "img", "photo", "gallery",
                     "video", "media", "credit", "player", "picture", "thumbnail", "slideshow",
                     "embed", "audio"});
        add(kTags, {"tag", "tags", "category", "categories", "topic", "topics", "keywords",
                    "label", "labels", "section", "cat", "kicker"});
        add(kModal, {"modal", "popup", "overlay", "hidden", "hide", "sr", "tooltip", "lightbox",
                     "alert", "message", "error", "screen", "invisible", "collapse", "dialog"});
        add(kIntroduction, {"summary", "lead", "lede", "intro", "introduction", "standfirst",
                            "subtitle", "subhead", "dek", "excerpt", "description", "deck",
                            "headline", "title"});
        return words;
    }();
    const auto found = table.find(word);
    return found == table.end() ? -1 : found->second;
}

// The hints in a value as bits: its words are parted by other characters and by capitals.
inline std::uint32_t hints_in(std::string_view value) {
    std::uint32_t hints = 0;
    char word[20];
    std::size_t size = 0;
    const auto flush = [&] {
        if (size >= 2 && size < sizeof word)
            if (const int hint = hint_of({word, size}); hint >= 0) hints |= 1u << hint;
        size = 0;
    };
    if (value.size() > 400) value = value.substr(0, 400);
    for (std::size_t i = 0; i < value.size(); ++i) {
        const char c = value[i];
        if (!ascii_letter(c) || (c < 'a' && i > 0 && value[i - 1] >= 'a' && value[i - 1] <= 'z'))
            flush();
        if (ascii_letter(c) && size < sizeof word) word[size++] = ascii_lower(c);
    }
    flush();
    return hints;
}

}  // namespace lmlab
