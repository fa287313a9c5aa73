// Layers in one pass over their rows.

Index scratch_of_layer(Index width) { return 3 * round_up(width, LANES); }

Vec sigmoid_of(Vec x) {
    const Vec e = exp_of(x < 0.0f ? x : -x);
    return (x < 0.0f ? e : all(1)) / (e + 1.0f);
}

template <class T>
void gate(const Gate<T>& f, Index row, float* scratch) {
    Room inputs(scratch, f.width), outputs(scratch, f.width);
    const float* gate = inputs.floats_of(f.gate.row(row));
    const float* value = inputs.floats_of(f.value.row(row));
    float* out = outputs.floats_for(f.out.row(row));
    for_vectors(f.width, [=](Index j, Index count) {
        const Vec x = load(gate + j, count);
        store(out + j, x * sigmoid_of(x) * load(value + j, count), count);
    });
    finish(out, f.width, f.out.row(row));
}

template <class T>
void gate_backward(const Gate<T>& f, Index row, float* scratch) {
    Room inputs(scratch, f.width), outputs(scratch, f.width);
    const float* gate = inputs.floats_of(f.gate.row(row));
    const float* value = inputs.floats_of(f.value.row(row));
    const float* grad = inputs.floats_of(f.grad.row(row));
    float* gate_grad = outputs.floats_for(f.gate_grad.row(row));
    float* value_grad = outputs.floats_for(f.value_grad.row(row));
    for_vectors(f.width, [=](Index j, Index count) {
        const Vec x = load(gate + j, count), s = sigmoid_of(x), y = load(grad + j, count);
        const Vec weight = y * load(value + j, count);
        store(gate_grad + j, weight * (s * (1.0f + x * (1.0f - s))), count);
        store(value_grad + j, y * (x * s), count);
    });
    finish(gate_grad, f.width, f.gate_grad.row(row));
    finish(value_grad, f.width, f.value_grad.row(row));
}

template <class T>
void norm(const Norm<T>& f, Index unit, float* scratch) {
    const Index width = f.width;
    for (Index i = unit * NORM_ROWS; i < least(f.rows, (unit + 1) * NORM_ROWS); ++i) {
        Room inputs(scratch, width), outputs(scratch, width);
        const float* x = inputs.floats_of(f.x + i * width);
        float* out = outputs.floats_for(f.out + i * width);
        const float sum = sum_over(width, [=](Index j, Index count) {
            return load(x + j, count) * load(x + j, count);
        });
        const float inverse = 1 / __builtin_sqrtf(sum / static_cast<float>(width) + f.eps);
        f.inverse[i] = inverse;
        for_vectors(width, [=](Index j, Index count) {
            store(out + j, load(x + j, count) * inverse * load(f.gain + j, count), count);
        });
        finish(out, width, f.out + i * width);
    }
}

// dx = (g - x inverse^2 mean(g x)) inverse with g = grad * gain.
template <class T>
void norm_backward(const Norm<T>& f, Index unit, float* scratch) {
    const Index width = f.width;
    float* gain_grads = f.gain_grads + unit * width;
    for (Index j = 0; j < width; ++j) gain_grads[j] = 0;
    for (Index i = unit * NORM_ROWS; i < least(f.rows, (unit + 1) * NORM_ROWS); ++i) {
        Room inputs(scratch, width), outputs(scratch, width);
        const float* x = inputs.floats_of(f.x + i * width);
        const float* grad = inputs.floats_of(f.grad + i * width);
        float* x_grad = outputs.floats_for(f.x_grad + i * width);
        const float inverse = f.inverse[i];
        const float sum = sum_over(width, [=](Index j, Index count) {
            const Vec y = load(grad + j, count) * (load(x + j, count) * inverse);
            store(gain_grads + j, load(gain_grads + j, count) + y, count);
            return y * load(f.gain + j, count);
        });
        const float mean = sum / static_cast<float>(width);
        for_vectors(width, [=](Index j, Index count) {
            const Vec y = load(grad + j, count) * load(f.gain + j, count);
            store(x_grad + j, (y - load(x + j, count) * inverse * mean) * inverse, count);
        });
        finish(x_grad, width, f.x_grad + i * width);
    }
}
