// The main content of a page: two linear classifiers of blocks, the second on the first's output.
#pragma once

#include <stdexcept>

#include "block_features.hpp"

namespace lmlab {

class Extractor {
public:
    Extractor(EntityTable entities, Features first, Features second)
        : entities_(std::move(entities)), first_(std::move(first)), second_(std::move(second)) {}

    Page read(std::string_view html, std::size_t max_depth) const {
        return PageReader(html, entities_, max_depth).read();
    }
    // Features of the first classifier, or of the second when `context`.
    std::vector<Features> features(const Page& page, bool context) const {
        std::vector<Features> features = page_features(page);
        if (!context) return features;
        const std::vector<float> probabilities = classify(features, first_);
        return context_features(page, std::move(features), probabilities);
    }
    // The blocks of main content, one a line; all blocks where none is.
    std::string text(const Page& page) const {
        const std::vector<float> probabilities = classify(features(page, true), second_);
        const bool any = std::any_of(probabilities.begin(), probabilities.end(),
                                     [](float p) { return p >= kThreshold; });
        std::string text;
        for (std::size_t i = 0; i < page.blocks.size(); ++i) {
            if (any && probabilities[i] < kThreshold) continue;
            if (!text.empty()) text.push_back('\n');
            text += page.blocks[i].text;
        }
        return text;
    }

private:
    static constexpr float kThreshold = 0.5f;

    EntityTable entities_;
    Features first_, second_;

    static std::vector<float> classify(const std::vector<Features>& features,
                                       const Features& weights) {
        std::vector<float> probabilities;
        probabilities.reserve(features.size());
        for (const Features& x : features) {
            if (x.size() != weights.size())
                throw std::invalid_argument("the weights do not fit the features");
            float sum = 0;
            for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * weights[i];
            probabilities.push_back(1 / (1 + std::exp(-sum)));
        }
        return probabilities;
    }
};

}  // namespace lmlab
