// What is done row by row, in float32 inside. Rows are shared out in blocks and every row is computed by one thread, so that results do not depend on the
// number of threads. Each kernel reads its sources once from memory, and again only while a row is in the cache, and writes its result once; the memory is what bounds
// it. by_vectors takes what is left of a row as a vector with zeros behind.

// Calls f(r) for all rows of x, about 8192 numbers' worth at a time.
template <typename F> static void each_row(const thread & t, const ggml_tensor * x, F f) {
    const int64_t each = 1 + 8191 / x->ne[0];
    for (int64_t i; (i = t.take() * each) < x->ne[1];) {
        for (int64_t r = i; r < i + each && r < x->ne[1]; r++) {
            f(r);
        }
    }
}

// Calls f with row r of x as what it is: floats, or bfloat16.
template <typename F> static inline void typed(const ggml_tensor * x, int64_t r, F f) {
    if (x->type == BF16) {
        f((uint16_t *) row(x, r));
    } else {
        f((float *) row(x, r));
    }
}

// Σ f(i, some) over the lanes of the vectors in n numbers, of not more than BLOCK in float32.
template <typename F> static inline double sum_of(int64_t n, F f) {
    enum { BLOCK = 1024 };
    double total = 0;
    for (int64_t b = 0; b < n; b += BLOCK) {
        vf s = vf{};
        by_vectors(n - b < BLOCK ? n - b : BLOCK, [&](int64_t i, auto some) { s += f(b + i, some); });
        total += sum(s);
    }
    return total;
}

// 1 / √(mean(x²) + eps).
static inline float inverse_rms(const float * x, int64_t n, float eps) {
    const double squares = sum_of(n, [&](int64_t i, auto some) {
        const vf v = load(x + i, some);
        return v * v;
    });
    return (float) (1 / std::sqrt(squares / n + eps));
}

// y = x ⊙ w / √(mean(x²) + eps). Sources: x, w; parameter: eps.
static void norm(const thread & t, ggml_tensor * dst) {
    const ggml_tensor * x = t.src[0];
    const float *       w = numbers(t.src[1]);
    const int64_t       n = x->ne[0];
    each_row(t, dst, [&](int64_t r) {
        const float * in = (const float *) row(x, r);
        const vf      s  = splat(inverse_rms(in, n, t.with->f[0]));
        typed(dst, r, [&](auto * y) {
            by_vectors(n, [&](int64_t i, auto some) { store(y + i, load(in + i, some) * s * load(w + i, some), some); });
        });
    });
}

// With s = 1 / √(mean(x²) + eps) and g = dy ⊙ w: dx = s (g − s² mean(x ⊙ g) x), + acc. Sources: dy, x, w, acc or NULL; parameter: eps.
static void norm_back(const thread & t, ggml_tensor * dst) {
    const ggml_tensor * dy = t.src[0], * x = t.src[1], * acc = t.src[3];
    const float *       w = numbers(t.src[2]);
    const int64_t       n = x->ne[0];
    each_row(t, dst, [&](int64_t r) {
        const float * in   = (const float *) row(x, r);
        const float * more = acc ? (const float *) row(acc, r) : nullptr;
        float *       dx   = (float *) row(dst, r);
        const float   s    = inverse_rms(in, n, t.with->f[0]);
        typed(dy, r, [&](auto * g) {
            const double xg = sum_of(n, [&](int64_t i, auto some) { return load(in + i, some) * (load(g + i, some) * load(w + i, some)); });
            const float  by = (float) (xg / n * s * s);
            by_vectors(n, [&](int64_t i, auto some) {
                const vf d = splat(s) * (load(g + i, some) * load(w + i, some) - splat(by) * load(in + i, some));
                store(dx + i, more ? load(more + i, some) + d : d, some);
            });
        });
    });
}

// y = gate ⊙ σ(gate) ⊙ up. Source: [gate, up].
static void swiglu(const thread & t, ggml_tensor * dst) {
    const ggml_tensor * gate_up = t.src[0];
    const int64_t       n       = dst->ne[0];
    each_row(t, dst, [&](int64_t r) {
        typed(gate_up, r, [&](auto * gate) {
            typed(dst, r, [&](auto * y) {
                by_vectors(n, [&](int64_t i, auto some) {
                    const vf x = load(gate + i, some);
                    store(y + i, x / (splat(1) + exp_of(-x)) * load(gate + n + i, some), some);
                });
            });
        });
    });
}

// With s = σ(gate): ∂gate = dy ⊙ up ⊙ s (1 + gate (1 − s)), ∂up = dy ⊙ gate ⊙ s. Sources: dy, [gate, up].
static void swiglu_back(const thread & t, ggml_tensor * dst) {
    const ggml_tensor * dy = t.src[0], * gate_up = t.src[1];
    const int64_t       n = dy->ne[0];
    each_row(t, dst, [&](int64_t r) {
        typed(dy, r, [&](auto * g) {
            typed(gate_up, r, [&](auto * gate) {
                typed(dst, r, [&](auto * d) {
                    by_vectors(n, [&](int64_t i, auto some) {
                        const vf x = load(gate + i, some), s = splat(1) / (splat(1) + exp_of(-x)), gs = load(g + i, some) * s;
                        store(d + i, gs * load(gate + n + i, some) * (splat(1) + x * (splat(1) - s)), some);
                        store(d + n + i, gs * x, some);
                    });
                });
            });
        });
    });
}

// Neighbouring numbers change places.
static inline vf swapped(vf v) {
    typedef uint64_t pairs __attribute__((vector_size(4 * LANES)));
    const pairs      p = (pairs) v;
    return (vf) (p << 32 | p >> 32);
}

// Neighbouring numbers (a, b) of the first `dims` of each of the first heads become (a cos − b sin, a sin + b cos), or are turned back; the others are copied.
// Sources: x, the table of (cos, sin) for each pair; parameters: heads to rotate, head dim, back.
static void rotate(const thread & t, ggml_tensor * dst) {
    const ggml_tensor * x = t.src[0], * table = t.src[1];
    const int64_t       dims = table->ne[0], heads = t.with->i[0], dim = t.with->i[1];
    const float         way = t.with->i[2] ? -1 : 1;
    each_row(t, dst, [&](int64_t r) {
        // (cos, cos) and (−sin, sin) of each pair, for all heads.
        float *       cosines = (float *) t.scratch(2 * dims * sizeof(float)), * sines = cosines + dims;
        const float * at = (const float *) row(table, r);
        for (int64_t i = 0; i < dims; i += 2) {
            cosines[i] = cosines[i + 1] = at[i];
            sines[i]     = -way * at[i + 1];
            sines[i + 1] = way * at[i + 1];
        }
        typed(x, r, [&](auto * in) {
            typed(dst, r, [&](auto * y) {
                for (int64_t h = 0; h < heads; h++) {
                    const int64_t first = h * dim;
                    by_vectors(dims, [&](int64_t i, auto some) {
                        const vf v = load(in + first + i, some);
                        store(y + first + i, v * load(cosines + i, some) + swapped(v) * load(sines + i, some), some);
                    });
                    copy(in + first + dims, y + first + dims, dim - dims);
                }
                copy(in + heads * dim, y + heads * dim, x->ne[0] - heads * dim);
            });
        });
    });
}

static void convert(const thread & t, ggml_tensor * dst) {
    const ggml_tensor * x = t.src[0];
    each_row(t, dst, [&](int64_t r) {
        typed(x, r, [&](auto * in) { typed(dst, r, [&](auto * y) { copy(in, y, x->ne[0]); }); });
    });
}

// What a row of logits is normalised by: softmax = exp(logit − by) / total. The exponentials are kept where there is a place for them.
struct normalizer {
    float  by;     // the greatest logit; 0 if that is infinite, as exp(0) alone is no number then
    double total;  // Σ exp(logit − by), which is NaN if a logit is

    normalizer(const float * x, int64_t n, float * exponentials = nullptr) {
        vf top = splat(-INFINITY);
        by_vectors(n, [&](int64_t i, auto some) {
            const vf v = load(x + i, some, -INFINITY);
            top        = v > top ? v : top;
        });
        by = greatest(top);
        by = std::isfinite(by) ? by : 0;
        total = sum_of(n, [&](int64_t i, auto some) {
            const vf e = exp_of(load(x + i, some, -INFINITY) - splat(by));
            if (exponentials) {
                store(exponentials + i, e, some);
            }
            return e;
        });
    }
};

// −log softmax(x)[label] of each row of x. Sources: x, labels. dst [rows].
static void cross_entropy(const thread & t, ggml_tensor * dst) {
    const ggml_tensor * x      = t.src[0];
    const int32_t *     labels = (const int32_t *) t.src[1]->data;
    each_row(t, x, [&](int64_t r) {
        const float *    in = (const float *) row(x, r);
        const normalizer z(in, x->ne[0]);
        ((float *) dst->data)[r] = (float) (std::log(z.total) + ((double) z.by - in[labels[r]]));
    });
}

// softmax(x) − onehot(label). Sources: x, labels.
static void cross_entropy_back(const thread & t, ggml_tensor * dst) {
    const ggml_tensor * x      = t.src[0];
    const int32_t *     labels = (const int32_t *) t.src[1]->data;
    const int64_t       n      = x->ne[0];
    each_row(t, x, [&](int64_t r) {
        const float *    in = (const float *) row(x, r);
        float *          e  = dst->type == F32 ? (float *) row(dst, r) : (float *) t.scratch(n * sizeof(float));
        const normalizer z(in, n, e);
        const vf         part = splat((float) (1 / z.total));
        typed(dst, r, [&](auto * y) {
            const vf right = exp_of(splat(in[labels[r]]) - splat(z.by)) * part - splat(1);
            by_vectors(n, [&](int64_t i, auto some) { store(y + i, load(e + i, some) * part, some); });
            store(y + labels[r], right, (int64_t) 1);
        });
    });
}
