// Cross-entropy of a row of logits and its gradient, with one exponential a logit.

constexpr Index SUMMED = 1024;  // floats that are added up before they join the sum: less rounding

// The sum of the vectors value(j) of the columns from j = 0 on.
template <class Value>
float sum_over(Index columns, Value value) {
    Vec sum{};
    for (Index at = 0; at < columns; at += SUMMED) {
        Vec part{};
        for (Index j = at; j < least(at + SUMMED, columns); j += LANES) part += value(j);
        sum += part;
    }
    return sum_of(sum);
}

Index scratch_of_losses(Index vocab) { return round_up(vocab, LANES); }

template <class T>
void losses(const Losses<T>& f, Index row, float* x) {
    const Index vocab = f.vocab, padded = scratch_of_losses(vocab), target = f.targets[row];
    const T* logits = f.logits + row * vocab;
    read(logits, vocab, 1, x);
    for (Index j = vocab; j < padded; ++j) x[j] = 2 * LOWEST;
    const float aim = x[target];
    Vec most_of = all(LOWEST);
    for (Index j = 0; j < padded; j += LANES) most_of = larger(load(x + j), most_of);
    const float largest = largest_of(most_of);
    float total = 0;
    if (f.smoothing > 0) {
        const Index whole = vocab / LANES * LANES;
        total = sum_over(whole, [&](Index j) { return load(x + j); });
        for (Index j = whole; j < vocab; ++j) total += x[j];
    }
    const float sum = sum_over(padded, [&](Index j) {
        const Vec p = exp_of(load(x + j) - largest);
        store(x + j, p);
        return p;
    });
    const float normaliser = largest + __builtin_logf(sum);
    const auto columns = static_cast<float>(vocab);
    float* terms = f.terms + row * TERMS;
    terms[0] = __builtin_logf(sum) - (aim - largest);
    terms[1] = f.z_loss > 0 ? f.z_loss * normaliser * normaliser : 0;
    terms[2] = f.smoothing > 0 ? f.smoothing * (aim - total / columns) : 0;
    if (!f.grads) return;
    // The derivative of the z-loss is 2 z log Z times each probability.
    const float factor = (f.z_loss > 0 ? 1 + 2 * f.z_loss * normaliser : 1) / sum;
    const float everywhere = f.smoothing / columns;
    const float there = x[target] * factor - everywhere + (f.smoothing - 1);
    T* grads = f.grads + row * vocab;
    if (f.smoothing > 0) {
        for (Index j = 0; j < padded; j += LANES) store(x + j, load(x + j) * factor - everywhere);
        write(x, vocab, 1, grads);
    } else {
        write(x, vocab, factor, grads);
    }
    write(&there, 1, 1, grads + target);
}
