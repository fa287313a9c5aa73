// Layers in one pass over their rows.

Index padded(Index width) { return round_up(width, LANES); }

Index scratch_of_layer(Index width) { return 3 * padded(width); }

Vec sigmoid_of(Vec x) {
    const Vec e = exp_of(x < 0.0f ? x : -x);
    return (x < 0.0f ? e : all(1)) / (e + 1.0f);
}

template <class T>
void gate(const Gate<T>& f, Index row, float* scratch) {
    const Index width = f.width;
    float* gate = take(&scratch, padded(width));
    float* value = take(&scratch, padded(width));
    read(f.gate.row(row), width, 1, gate);
    read(f.value.row(row), width, 1, value);
    for (Index j = 0; j < width; j += LANES) {
        const Vec x = load(gate + j);
        store(gate + j, x * sigmoid_of(x) * load(value + j));
    }
    write(gate, width, 1, f.out.row(row));
}

template <class T>
void gate_backward(const Gate<T>& f, Index row, float* scratch) {
    const Index width = f.width;
    float* gate = take(&scratch, padded(width));
    float* value = take(&scratch, padded(width));
    float* grad = take(&scratch, padded(width));
    read(f.gate.row(row), width, 1, gate);
    read(f.value.row(row), width, 1, value);
    read(f.grad.row(row), width, 1, grad);
    for (Index j = 0; j < width; j += LANES) {
        const Vec x = load(gate + j), s = sigmoid_of(x), y = load(grad + j);
        store(gate + j, y * load(value + j) * (s * (1.0f + x * (1.0f - s))));
        store(value + j, y * (x * s));
    }
    write(gate, width, 1, f.gate_grad.row(row));
    write(value, width, 1, f.value_grad.row(row));
}

// The sum of a row's products; `x` and `y` are 0 between width and padded width.
float dot_of(const float* x, const float* y, Index width) {
    return sum_over(padded(width), [&](Index j) { return load(x + j) * load(y + j); });
}

template <class T>
void norm(const Norm<T>& f, Index unit, float* scratch) {
    const Index width = f.width;
    float* x = take(&scratch, padded(width));
    for (Index j = 0; j < padded(width); ++j) x[j] = 0;
    for (Index i = unit * NORM_ROWS; i < least(f.rows, (unit + 1) * NORM_ROWS); ++i) {
        read(f.x + i * width, width, 1, x);
        const float mean = dot_of(x, x, width) / static_cast<float>(width);
        const float inverse = 1 / __builtin_sqrtf(mean + f.eps);
        f.inverse[i] = inverse;
        for (Index j = 0; j < width; ++j) x[j] = x[j] * inverse * f.gain[j];
        write(x, width, 1, f.out + i * width);
    }
}

// dx = (g - x inverse^2 mean(g x)) inverse with g = grad * gain.
template <class T>
void norm_backward(const Norm<T>& f, Index unit, float* scratch) {
    const Index width = f.width;
    float* x = take(&scratch, padded(width));
    float* grad = take(&scratch, padded(width));
    float* gain_grad = take(&scratch, padded(width));
    for (Index j = 0; j < padded(width); ++j) x[j] = grad[j] = gain_grad[j] = 0;
    for (Index i = unit * NORM_ROWS; i < least(f.rows, (unit + 1) * NORM_ROWS); ++i) {
        const float inverse = f.inverse[i];
        read(f.x + i * width, width, inverse, x);
        read(f.grad + i * width, width, 1, grad);
        for (Index j = 0; j < width; ++j) {
            gain_grad[j] += grad[j] * x[j];
            grad[j] *= f.gain[j];
        }
        const float mean = dot_of(grad, x, width) / static_cast<float>(width);
        for (Index j = 0; j < width; ++j) grad[j] -= x[j] * mean;
        write(grad, width, inverse, f.x_grad + i * width);
    }
    for (Index j = 0; j < width; ++j) f.gain_grads[unit * width + j] = gain_grad[j];
}
