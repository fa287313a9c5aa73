// Cross-entropy of a row of logits and its gradient, with one exponential a logit.

Index scratch_of_losses(Index vocab) { return round_up(vocab, LANES); }

template <class T>
void losses(const Losses<T>& f, Index row, float* scratch) {
    const Index vocab = f.vocab, target = f.targets[row];
    Room inputs(scratch, vocab), outputs(scratch, vocab);
    const float* logits = inputs.floats_of(f.logits + row * vocab);
    float* p = f.grads ? outputs.floats_for(f.grads + row * vocab) : scratch;
    const float aim = logits[target];
    Vec most_of = all(LOWEST);
    for_vectors(vocab, [&](Index j, Index count) {
        most_of = larger(load(logits + j, count, LOWEST), most_of);
    });
    const float largest = largest_of(most_of);
    float total = 0;
    if (f.smoothing > 0)
        total = sum_over(vocab, [=](Index j, Index count) { return load(logits + j, count); });
    const float sum = sum_over(vocab, [=](Index j, Index count) {
        const Vec e = exp_of(load(logits + j, count, 2 * LOWEST) - largest);
        store(p + j, e, count);
        return e;
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
    const float there = p[target] * factor - everywhere + (f.smoothing - 1);
    T* grads = f.grads + row * vocab;
    if (f.smoothing > 0) {
        for_vectors(vocab, [=](Index j, Index count) {
            store(p + j, load(p + j, count) * factor - everywhere, count);
        });
        finish(p, vocab, grads);
    } else {
        finish(p, vocab, grads, factor);
    }
    write(&there, 1, 1, grads + target);
}
