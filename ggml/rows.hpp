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

// y = x ⊙ w / √(mean(x²) + eps) for n numbers.
template <typename T> static inline void normed(const float * x, const float * w, float eps, T * y, int64_t n) {
    const vf s = splat(inverse_rms(x, n, eps));
    by_vectors(n, [&](int64_t i, auto some) { store(y + i, load(x + i, some) * s * load(w + i, some), some); });
}

// With s = 1 / √(mean(x²) + eps) and g = dy ⊙ w: dx = s (g − s² mean(x ⊙ g) x), + more where there is that. Inlined always: as a call it takes a tenth longer.
template <typename G, typename T>
__attribute__((always_inline)) static inline void normed_back(const G * dy, const float * x, const float * w, float eps, const float * more, T * dx, int64_t n) {
    const float  s  = inverse_rms(x, n, eps);
    const double xg = sum_of(n, [&](int64_t i, auto some) { return load(x + i, some) * (load(dy + i, some) * load(w + i, some)); });
    const float  by = (float) (xg / n * s * s);
    by_vectors(n, [&](int64_t i, auto some) {
        const vf d = splat(s) * (load(dy + i, some) * load(w + i, some) - splat(by) * load(x + i, some));
        store(dx + i, more ? load(more + i, some) + d : d, some);
    });
}

// Sources: x, w; parameter: eps.
static void norm(const thread & t, ggml_tensor * dst) {
    const ggml_tensor * x = t.src[0];
    const float *       w = numbers(t.src[1]);
    each_row(t, dst, [&](int64_t r) {
        typed(dst, r, [&](auto * y) { normed((const float *) row(x, r), w, t.with->f[0], y, x->ne[0]); });
    });
}

// Sources: dy, x, w, acc or NULL; parameter: eps.
static void norm_back(const thread & t, ggml_tensor * dst) {
    const ggml_tensor * dy = t.src[0], * x = t.src[1], * acc = t.src[3];
    const float *       w = numbers(t.src[2]);
    each_row(t, dst, [&](int64_t r) {
        const float * more = acc ? (const float *) row(acc, r) : nullptr;
        typed(dy, r, [&](auto * g) { normed_back(g, (const float *) row(x, r), w, t.with->f[0], more, (float *) row(dst, r), x->ne[0]); });
    });
}

// The heads of q and those of k, each normed by itself; v is copied. Sources: [q, k, v], weights of q's heads, of k's; parameters: heads, KV heads, eps.
static void norm_heads(const thread & t, ggml_tensor * dst) {
    const ggml_tensor * x = t.src[0];
    const int64_t       dim = t.src[1]->ne[0], heads = t.with->i[0], turned = heads + t.with->i[1];
    each_row(t, dst, [&](int64_t r) {
        const float * in = (const float *) row(x, r);
        typed(dst, r, [&](auto * y) {
            for (int64_t h = 0; h < turned; h++) {
                normed(in + h * dim, numbers(t.src[h < heads ? 1 : 2]), t.with->f[0], y + h * dim, dim);
            }
            copy(in + turned * dim, y + turned * dim, x->ne[0] - turned * dim);
        });
    });
}

// Sources: dy, [q, k, v], weights of q's heads, of k's; parameters as above.
static void norm_heads_back(const thread & t, ggml_tensor * dst) {
    const ggml_tensor * dy = t.src[0], * x = t.src[1];
    const int64_t       dim = t.src[2]->ne[0], heads = t.with->i[0], turned = heads + t.with->i[1];
    each_row(t, dst, [&](int64_t r) {
        const float * in = (const float *) row(x, r);
        typed(dy, r, [&](auto * g) {
            typed(dst, r, [&](auto * dx) {
                for (int64_t h = 0; h < turned; h++) {
                    normed_back(g + h * dim, in + h * dim, numbers(t.src[h < heads ? 2 : 3]), t.with->f[0], nullptr, dx + h * dim, dim);
                }
                copy(g + turned * dim, dx + turned * dim, x->ne[0] - turned * dim);
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

// Pairs (a, b) of the first `dims` numbers of each of the first heads become (a cos − b sin, a sin + b cos), or are turned back; the others are copied. A pair are
// neighbours, or the same numbers of the two halves.
// Sources: x, the table of (cos, sin) for each pair; parameters: heads to rotate, head dim, back, halves.
static void rotate(const thread & t, ggml_tensor * dst) {
    const ggml_tensor * x = t.src[0], * table = t.src[1];
    const int64_t       dims = table->ne[0], heads = t.with->i[0], dim = t.with->i[1];
    const float         way = t.with->i[2] ? -1 : 1;
    const bool          halves = t.with->i[3];
    each_row(t, dst, [&](int64_t r) {
        // For all heads: (cos, cos) and (−sin, sin) of each pair of neighbours, or cos and sin of each pair.
        float *       cosines = (float *) t.scratch(2 * dims * sizeof(float)), * sines = cosines + dims;
        const float * at = (const float *) row(table, r);
        for (int64_t i = 0; i < dims; i += 2) {
            if (halves) {
                cosines[i / 2] = at[i];
                sines[i / 2]   = way * at[i + 1];
                continue;
            }
            cosines[i] = cosines[i + 1] = at[i];
            sines[i]     = -way * at[i + 1];
            sines[i + 1] = way * at[i + 1];
        }
        typed(x, r, [&](auto * in) {
            typed(dst, r, [&](auto * y) {
                for (int64_t h = 0; h < heads; h++) {
                    const int64_t first = h * dim, second = first + dims / 2;
                    if (halves) {
                        by_vectors(dims / 2, [&](int64_t i, auto some) {
                            const vf a = load(in + first + i, some), b = load(in + second + i, some), cos = load(cosines + i, some), sin = load(sines + i, some);
                            store(y + first + i, a * cos - b * sin, some);
                            store(y + second + i, b * cos + a * sin, some);
                        });
                    } else {
                        by_vectors(dims, [&](int64_t i, auto some) {
                            const vf v = load(in + first + i, some);
                            store(y + first + i, v * load(cosines + i, some) + swapped(v) * load(sines + i, some), some);
                        });
                    }
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
