// Causal attention on the CPU: what the bindings and the code of each instruction set share.
#pragma once

#include <cstdint>

namespace lmlab {

using Index = std::int64_t;

// Elements of a tensor (batch, heads, time, width) whose last dimension is contiguous. With
// `token`, of (1, heads, tokens, width): the token in each place of a row.
template <class T>
struct View {
    T* data;
    Index batch, head, time;  // strides in elements
    const Index* token;
    Index token_row;  // stride in elements

    // Inline in each set of instructions: a shared copy could be of the wrong one.
    [[gnu::always_inline]] T* row(Index b, Index h, Index t) const {
        if (token) return data + h * head + token[b * token_row + t] * time;
        return data + b * batch + h * head + t * time;
    }
};

struct Shape {
    Index batch, key_heads, group, time, width;  // group: query heads of a key head
    Index window;                                // keys that a query sees, itself included
    // Rows that share tokens, (batch, 2 + time): the first place whose token no earlier row has,
    // the number of tokens without padding, and the tokens. Null: each row has its own.
    const Index* sharing;
    Index tokens;  // those that the rows share

    [[gnu::always_inline]] const Index* shared(Index b) const { return sharing + b * (2 + time); }
    // The queries of a row that are computed, from `first` to `length`, the number of its keys.
    [[gnu::always_inline]] Index first(Index b) const { return sharing ? shared(b)[0] : 0; }
    [[gnu::always_inline]] Index length(Index b) const { return sharing ? shared(b)[1] : time; }
};

// Heads of keys, each with its group of query heads, are computed independently.
inline Index units(const Shape& s) { return s.batch * s.key_heads; }

// In the backward pass, rows that share keys add to the same gradients, one after the other.
inline Index backward_units(const Shape& s) { return s.sharing ? s.key_heads : units(s); }

template <class T>
struct Forward {
    Shape shape;
    View<const T> q, k, v;
    View<const float> rotation;  // (batch, 1, time, width) as in rows.hpp; without data: none
    View<T> out;
    float* normalisers;  // (batch, query heads, time): the log of each query's sum of exponentials
};

template <class T>
struct Backward {
    Shape shape;
    View<const T> q, k, v, out, grad;
    View<const float> rotation;
    const float* normalisers;
    View<T> q_grad, k_grad, v_grad;
};

// One query a row; `time` of the shape is the number of keys.
template <class T>
struct Single {
    Shape shape;
    View<const T> q, k, v;
    View<T> out;
    const bool* allowed;  // (batch or 1, keys): the keys that a row sees; null: all
    Index allowed_row;    // stride in elements
    float cap;            // scores become cap * tanh(score / cap); 0: they stay
};

}  // namespace lmlab
