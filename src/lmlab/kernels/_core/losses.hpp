// Cross-entropy of rows of logits: what the bindings and the code of each instruction set share.
#pragma once

#include <cstdint>

namespace lmlab {

using Index = std::int64_t;

constexpr int TERMS = 3;  // cross-entropy, z-loss, label smoothing

template <class T>
struct Losses {
    Index vocab;
    const T* logits;       // (rows, vocab)
    const Index* targets;  // (rows): each a column
    float z_loss, smoothing;
    T* grads;      // (rows, vocab), of the sum of all terms; null: not wanted
    float* terms;  // (rows, TERMS)
};

}  // namespace lmlab
