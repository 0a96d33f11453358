// Operations on rows, in float32 inside. bindings/rowwise.go has the formulas and shapes of what stands here without
// one.
//
// Rows are divided among threads in blocks, and one thread computes a row: results do not depend on the number of
// threads. Each kernel reads its sources from memory once, and again only while a row is in the cache, and writes its
// result once; memory is the bound. by_vectors computes the remainder of a row as a vector that is padded with zeros.
#pragma once

#include "exp.hpp"
#include "vectors.hpp"

namespace vera {
namespace KERNELS {

// Calls f(r) for all rows r of x; a thread takes about 8192 elements at a time.
template <typename F> static void each_row(const thread & t, const ggml_tensor * x, F f) {
    const int64_t each = 1 + 8191 / x->ne[0];
    for (int64_t i; (i = t.take() * each) < x->ne[1];) {
        for (int64_t r = i; r < i + each && r < x->ne[1]; r++) {
            f(r);
        }
    }
}

// Calls f with row r of x as it is typed: floats, or bfloat16.
template <typename F> static inline void typed(const ggml_tensor * x, int64_t r, F f) {
    if (x->type == BF16) {
        f((uint16_t *) row(x, r));
    } else {
        f((float *) row(x, r));
    }
}

// Σ f(i, some) over the lanes of the vectors of n elements: in float32 for BLOCK elements, then in float64.
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

// y = x ⊙ w / √(mean(x²) + eps) for n elements.
template <typename T> static inline void normed(const float * x, const float * w, float eps, T * y, int64_t n) {
    const vf s = splat(inverse_rms(x, n, eps));
    by_vectors(n, [&](int64_t i, auto some) { store(y + i, load(x + i, some) * s * load(w + i, some), some); });
}

// With s = 1 / √(mean(x²) + eps) and g = dy ⊙ w: dx = s (g − s² mean(x ⊙ g) x), + acc unless it is NULL. Always
// inlined: as a call it takes a tenth longer.
template <typename G, typename T>
__attribute__((always_inline)) static inline void normed_back(const G * dy, const float * x, const float * w, float eps,
                                                              const float * acc, T * dx, int64_t n) {
    const float  s = inverse_rms(x, n, eps);
    const double xg =
        sum_of(n, [&](int64_t i, auto some) { return load(x + i, some) * (load(dy + i, some) * load(w + i, some)); });
    const float along = (float) (xg / n * s * s);
    by_vectors(n, [&](int64_t i, auto some) {
        const vf d = splat(s) * (load(dy + i, some) * load(w + i, some) - splat(along) * load(x + i, some));
        store(dx + i, acc ? load(acc + i, some) + d : d, some);
    });
}

// Sources: x, w.
static void norm(const thread & t, const ggml_vera_norm & with, ggml_tensor * dst) {
    const ggml_tensor * x = t.src[0];
    const float *       w = float_data(t.src[1]);
    each_row(t, dst, [&](int64_t r) {
        typed(dst, r, [&](auto * y) { normed((const float *) row(x, r), w, with.eps, y, x->ne[0]); });
    });
}

// Sources: dy, x, w, acc or NULL.
static void norm_back(const thread & t, const ggml_vera_norm & with, ggml_tensor * dst) {
    const ggml_tensor *dy = t.src[0], *x = t.src[1], *acc = t.src[3];
    const float *      w = float_data(t.src[2]);
    each_row(t, dst, [&](int64_t r) {
        const float * more = acc ? (const float *) row(acc, r) : nullptr;
        typed(dy, r, [&](auto * g) {
            normed_back(g, (const float *) row(x, r), w, with.eps, more, (float *) row(dst, r), x->ne[0]);
        });
    });
}

// The mean of x and 1 / √(variance + eps).
struct moments {
    float mean, scale;

    moments(const float * x, int64_t n, float eps) {
        mean                 = (float) (sum_of(n, [&](int64_t i, auto some) { return load(x + i, some); }) / n);
        const double squares = sum_of(n, [&](int64_t i, auto some) {
            const vf d = load(x + i, some, mean) - splat(mean);
            return d * d;
        });
        scale                = (float) (1 / std::sqrt(squares / n + eps));
    }
};

// With s = 1 / √(var(x) + eps): y = s (x − mean(x)) ⊙ w + b. Sources: x, w, b.
static void layer_norm(const thread & t, const ggml_vera_norm & with, ggml_tensor * dst) {
    const ggml_tensor * source = t.src[0];
    const float *       w = float_data(t.src[1]), *b = float_data(t.src[2]);
    const int64_t       n = source->ne[0];
    each_row(t, dst, [&](int64_t r) {
        const float * x = (const float *) row(source, r);
        const moments m(x, n, with.eps);
        typed(dst, r, [&](auto * y) {
            by_vectors(n, [&](int64_t i, auto some) {
                store(y + i,
                      (load(x + i, some) - splat(m.mean)) * splat(m.scale) * load(w + i, some) + load(b + i, some),
                      some);
            });
        });
    });
}

// With d = x − mean(x) and g = dy ⊙ w: dx = s (g − mean(g) − s² mean(d ⊙ g) d), + acc. Sources: dy, x, w, acc or NULL.
static void layer_norm_back(const thread & t, const ggml_vera_norm & with, ggml_tensor * dst) {
    const ggml_tensor *dy = t.src[0], *source = t.src[1], *acc = t.src[3];
    const float *      w = float_data(t.src[2]);
    const int64_t      n = source->ne[0];
    each_row(t, dst, [&](int64_t r) {
        const float * x = (const float *) row(source, r), *more = acc ? (const float *) row(acc, r) : nullptr;
        float *       dx = (float *) row(dst, r);
        const moments m(x, n, with.eps);
        const vf      mean = splat(m.mean), s = splat(m.scale);
        typed(dy, r, [&](auto * up) {
            const double all  = sum_of(n, [&](int64_t i, auto some) { return load(up + i, some) * load(w + i, some); });
            const double dg   = sum_of(n, [&](int64_t i, auto some) {
                return (load(x + i, some, m.mean) - mean) * (load(up + i, some) * load(w + i, some));
            });
            const vf     part = splat((float) (all / n)), by = splat((float) (dg / n * m.scale * m.scale));
            by_vectors(n, [&](int64_t i, auto some) {
                const vf d = s * (load(up + i, some) * load(w + i, some) - part - by * (load(x + i, some) - mean));
                store(dx + i, more ? load(more + i, some) + d : d, some);
            });
        });
    });
}

// Which parts of a row [q, k, v] have a norm: each head of q and of k, or q and k as a whole, as the lengths of their
// weights say.
struct head_norms {
    const ggml_tensor *q, *k;
    int64_t            keys, values;  // where k and v begin

    head_norms(const ggml_vera_norm_heads & with, const ggml_tensor * x, const ggml_tensor * q, const ggml_tensor * k)
        : q(q), k(k) {
        const int64_t heads = with.heads, kv_heads = with.kv_heads, dim = x->ne[0] / (heads + 2 * kv_heads);
        keys   = dim * heads;
        values = dim * (heads + kv_heads);
    }

    // Calls f(start, weights, length) for each part.
    template <typename F> void each(F f) const {
        for (int64_t i = 0; i < values;) {
            const ggml_tensor * w = i < keys ? q : k;
            f(i, float_data(w), w->ne[0]);
            i += w->ne[0];
        }
    }
};

// Norms q and k, and copies v. Sources: [q, k, v], weights of q, weights of k.
static void norm_heads(const thread & t, const ggml_vera_norm_heads & with, ggml_tensor * dst) {
    const ggml_tensor * x = t.src[0];
    const head_norms    norms(with, x, t.src[1], t.src[2]);
    each_row(t, dst, [&](int64_t r) {
        const float * in = (const float *) row(x, r);
        typed(dst, r, [&](auto * y) {
            norms.each([&](int64_t i, const float * w, int64_t n) { normed(in + i, w, with.eps, y + i, n); });
            copy(in + norms.values, y + norms.values, x->ne[0] - norms.values);
        });
    });
}

// Sources: dy, [q, k, v], weights of q, weights of k.
static void norm_heads_back(const thread & t, const ggml_vera_norm_heads & with, ggml_tensor * dst) {
    const ggml_tensor *dy = t.src[0], *x = t.src[1];
    const head_norms   norms(with, x, t.src[2], t.src[3]);
    each_row(t, dst, [&](int64_t r) {
        const float * in = (const float *) row(x, r);
        typed(dy, r, [&](auto * g) {
            typed(dst, r, [&](auto * dx) {
                norms.each([&](int64_t i, const float * w, int64_t n) {
                    normed_back(g + i, in + i, w, with.eps, nullptr, dx + i, n);
                });
                copy(g + norms.values, dx + norms.values, x->ne[0] - norms.values);
            });
        });
    });
}

// Activations f(x) σ(φ(x)). An activation has
//
//   value, rise             f(x), and f′(x); f(x) = x unless it says otherwise
//   phi, along              φ(x), and f(x) φ′(x)
//   gate, up                what it makes of gate and up before it multiplies them
//   gate_back, up_back      the gradient g as these pass it on
//
// In the kernels x is gate(…) already.
struct unlimited {
    static vf value(vf x) { return x; }

    static vf rise() { return splat(1); }

    static vf gate(vf x) { return x; }

    static vf up(vf u) { return u; }

    static vf gate_back(vf, vf g) { return g; }

    static vf up_back(vf, vf g) { return g; }
};

struct silu : unlimited {
    static vf phi(vf x) { return x; }

    static vf along(vf x) { return x; }
};

struct gelu : unlimited {
    // 2 √(2/π), and 0.044715 times that
    static constexpr float LINEAR = 1.5957691216057308f, CUBIC = 0.07135481627159867f;

    static vf phi(vf x) { return x * (splat(LINEAR) + splat(CUBIC) * (x * x)); }

    static vf along(vf x) { return x * (splat(LINEAR) + splat(3 * CUBIC) * (x * x)); }
};

// σ(x)
struct logistic : unlimited {
    static vf value(vf) { return splat(1); }

    static vf rise() { return vf{}; }

    static vf phi(vf x) { return x; }

    static vf along(vf) { return splat(1); }
};

// min(x, 7) σ(1.702 min(x, 7)) · (1 + u), with u clamped to between −7 and 7.
struct clamped : unlimited {
    static constexpr float LIMIT = 7, STEEP = 1.702f;

    static vf phi(vf x) { return splat(STEEP) * x; }

    static vf along(vf x) { return splat(STEEP) * x; }

    static vf gate(vf x) { return x > splat(LIMIT) ? splat(LIMIT) : x; }

    static vf up(vf u) {
        const vf limited = gate(u);
        return splat(1) + (limited < splat(-LIMIT) ? splat(-LIMIT) : limited);
    }

    static vf gate_back(vf x, vf g) { return x > splat(LIMIT) ? vf{} : g; }

    static vf up_back(vf u, vf g) { return u < splat(-LIMIT) ? vf{} : gate_back(u, g); }
};

// Calls f with the activation of a node.
template <typename F> static inline void with_activation(const ggml_vera_activation & with, F f) {
    switch (with.act) {
    case GGML_VERA_GELU: return f(gelu());
    case GGML_VERA_CLAMPED: return f(clamped());
    case GGML_VERA_SIGMOID: return f(logistic());
    default: f(silu());
    }
}

// y = act(x), or act(gate) ⊙ up of [gate, up]. Source: x, or [gate, up].
template <bool GATED>
static void activated(const thread & t, const ggml_vera_activation & with, ggml_tensor * dst) {
    const ggml_tensor * source = t.src[0];
    const int64_t       n      = dst->ne[0];
    with_activation(with, [&](auto act) {
        each_row(t, dst, [&](int64_t r) {
            typed(source, r, [&](auto * gate) {
                typed(dst, r, [&](auto * y) {
                    by_vectors(n, [&](int64_t i, auto some) {
                        const vf x = act.gate(load(gate + i, some)),
                                 v = act.value(x) / (splat(1) + exp_of(-act.phi(x)));
                        store(y + i, GATED ? v * act.up(load(gate + n + i, some)) : v, some);
                    });
                });
            });
        });
    });
}

// With s = σ(φ(x)): act′(x) = s (f′(x) + f(x) φ′(x) (1 − s)). ∂x = dy ⊙ act′(x); or ∂gate = dy ⊙ up ⊙ act′(gate) and
// ∂up = dy ⊙ f(gate) ⊙ s. Sources: dy, and x or [gate, up].
template <bool GATED>
static void activated_back(const thread & t, const ggml_vera_activation & with, ggml_tensor * dst) {
    const ggml_tensor *dy = t.src[0], *source = t.src[1];
    const int64_t      n = dy->ne[0];
    with_activation(with, [&](auto act) {
        each_row(t, dst, [&](int64_t r) {
            typed(dy, r, [&](auto * g) {
                typed(source, r, [&](auto * gate) {
                    typed(dst, r, [&](auto * d) {
                        by_vectors(n, [&](int64_t i, auto some) {
                            const vf from = load(gate + i, some), x = act.gate(from),
                                     s = splat(1) / (splat(1) + exp_of(-act.phi(x))), gs = load(g + i, some) * s;
                            store(d + i,
                                  act.gate_back(from, (GATED ? gs * act.up(load(gate + n + i, some)) : gs) *
                                                          (act.rise() + act.along(x) * (splat(1) - s))),
                                  some);
                            if (GATED) {
                                store(d + n + i, act.up_back(load(gate + n + i, some), gs * act.value(x)), some);
                            }
                        });
                    });
                });
            });
        });
    });
}

static void activate(const thread & t, const ggml_vera_activation & with, ggml_tensor * dst) {
    activated<false>(t, with, dst);
}

static void activate_back(const thread & t, const ggml_vera_activation & with, ggml_tensor * dst) {
    activated_back<false>(t, with, dst);
}

static void gated(const thread & t, const ggml_vera_activation & with, ggml_tensor * dst) {
    activated<true>(t, with, dst);
}

static void gated_back(const thread & t, const ggml_vera_activation & with, ggml_tensor * dst) {
    activated_back<true>(t, with, dst);
}

// Neighbouring lanes exchanged.
static inline vf swapped(vf v) {
    typedef uint64_t pairs __attribute__((vector_size(4 * LANES)));
    const pairs      p = (pairs) v;
    return (vf) (p << 32 | p >> 32);
}

// Rotates pairs (a, b) of the first `dims` elements of each of the first heads: (a cos − b sin, a sin + b cos), or by
// the negative angle. Copies everything else. A pair are neighbours, or the same elements of the two halves of the
// `dims`. Sources: x, the table of (cos, sin) for each pair [dims, rows].
static void rotate(const thread & t, const ggml_vera_rotation & with, ggml_tensor * dst) {
    const ggml_tensor *x = t.src[0], *table = t.src[1];
    const int64_t      dims = table->ne[0], heads = with.heads, dim = with.head_dim;
    const float        way    = with.back ? -1 : 1;
    const bool         halves = with.halves;
    each_row(t, dst, [&](int64_t r) {
        // for all heads: (cos, cos) and (−sin, sin) of each pair of neighbours; or cos and sin of each pair
        float *       cosines = (float *) t.scratch(2 * dims * sizeof(float)), *sines = cosines + dims;
        const float * angles = (const float *) row(table, r);
        for (int64_t i = 0; i < dims; i += 2) {
            if (halves) {
                cosines[i / 2] = angles[i];
                sines[i / 2]   = way * angles[i + 1];
                continue;
            }
            cosines[i] = cosines[i + 1] = angles[i];
            sines[i]                    = -way * angles[i + 1];
            sines[i + 1]                = way * angles[i + 1];
        }
        typed(x, r, [&](auto * in) {
            typed(dst, r, [&](auto * y) {
                for (int64_t h = 0; h < heads; h++) {
                    const int64_t first = h * dim, second = first + dims / 2;
                    if (halves) {
                        by_vectors(dims / 2, [&](int64_t i, auto some) {
                            const vf a = load(in + first + i, some), b = load(in + second + i, some),
                                     cos = load(cosines + i, some), sin = load(sines + i, some);
                            store(y + first + i, a * cos - b * sin, some);
                            store(y + second + i, b * cos + a * sin, some);
                        });
                    } else {
                        by_vectors(dims, [&](int64_t i, auto some) {
                            const vf v = load(in + first + i, some);
                            store(y + first + i, v * load(cosines + i, some) + swapped(v) * load(sines + i, some),
                                  some);
                        });
                    }
                    copy(in + first + dims, y + first + dims, dim - dims);
                }
                copy(in + heads * dim, y + heads * dim, x->ne[0] - heads * dim);
            });
        });
    });
}

// Sources: x.
static void convert(const thread & t, ggml_tensor * dst) {
    const ggml_tensor * x = t.src[0];
    each_row(t, dst, [&](int64_t r) {
        typed(x, r, [&](auto * in) { typed(dst, r, [&](auto * y) { copy(in, y, x->ne[0]); }); });
    });
}

// to = cap · tanh(x / cap) for n elements.
static inline void cap_row(const float * x, float cap, float * to, int64_t n) {
    const vf in = splat(1 / cap), out = splat(cap);
    by_vectors(n, [&](int64_t i, auto some) { store(to + i, out * tanh_of(load(x + i, some) * in), some); });
}

// Source: x.
static void capped(const thread & t, const ggml_vera_cap & with, ggml_tensor * dst) {
    each_row(t, dst, [&](int64_t r) {
        cap_row((const float *) row(t.src[0], r), with.cap, (float *) row(dst, r), dst->ne[0]);
    });
}

// The logits x, or capped in buf.
static inline const float * logits(const float * x, float cap, float * buf, int64_t n) {
    if (cap == 0) {
        return x;
    }
    cap_row(x, cap, buf, n);
    return buf;
}

// The normaliser of a row of logits: softmax = exp(logit − top) / total. It also stores the exponentials, unless
// `exponentials` is NULL.
struct normalizer {
    float  top;    // the largest logit; 0 if that is infinite, since ∞ − ∞ is NaN
    double total;  // Σ exp(logit − top); NaN if a logit is NaN

    normalizer(const float * x, int64_t n, float * exponentials = nullptr) {
        vf largest = splat(-INFINITY);
        by_vectors(n, [&](int64_t i, auto some) {
            const vf v = load(x + i, some, -INFINITY);
            largest    = v > largest ? v : largest;
        });
        top   = max_of(largest);
        top   = std::isfinite(top) ? top : 0;
        total = sum_of(n, [&](int64_t i, auto some) {
            const vf e = exp_of(load(x + i, some, -INFINITY) - splat(top));
            if (exponentials) {
                store(exponentials + i, e, some);
            }
            return e;
        });
    }
};

// −log softmax(x)[label] of each row of x, which is capped first if cap is not 0. Sources: x, labels. dst [rows].
static void cross_entropy(const thread & t, const ggml_vera_cap & with, ggml_tensor * dst) {
    const ggml_tensor * x      = t.src[0];
    const int32_t *     labels = (const int32_t *) t.src[1]->data;
    const int64_t       n      = x->ne[0];
    const float         cap    = with.cap;
    float *             buf    = cap != 0 ? (float *) t.scratch(n * sizeof(float)) : nullptr;
    each_row(t, x, [&](int64_t r) {
        const float *    in = logits((const float *) row(x, r), cap, buf, n);
        const normalizer z(in, n);
        ((float *) dst->data)[r] = (float) (std::log(z.total) + ((double) z.top - in[labels[r]]));
    });
}

// softmax(x) − onehot(label), times tanh′ = 1 − tanh² if cap is not 0. Sources: x, labels.
static void cross_entropy_back(const thread & t, const ggml_vera_cap & with, ggml_tensor * dst) {
    const ggml_tensor * x      = t.src[0];
    const int32_t *     labels = (const int32_t *) t.src[1]->data;
    const int64_t       n      = x->ne[0];
    const float         cap    = with.cap;
    float *             buf    = (float *) t.scratch(2 * n * sizeof(float));
    each_row(t, x, [&](int64_t r) {
        const float *    in = logits((const float *) row(x, r), cap, buf, n);
        float *          e  = dst->type == F32 ? (float *) row(dst, r) : buf + n;
        const normalizer z(in, n, e);
        const vf         part = splat((float) (1 / z.total)), inverse = splat(cap == 0 ? 0 : 1 / cap);
        const auto       slope = [&](vf c) { return splat(1) - c * inverse * (c * inverse); };
        typed(dst, r, [&](auto * y) {
            vf right = exp_of(splat(in[labels[r]]) - splat(z.top)) * part - splat(1);
            if (cap == 0) {
                by_vectors(n, [&](int64_t i, auto some) { store(y + i, load(e + i, some) * part, some); });
            } else {
                right *= slope(splat(in[labels[r]]));
                by_vectors(n, [&](int64_t i, auto some) {
                    store(y + i, load(e + i, some) * part * slope(load(in + i, some)), some);
                });
            }
            store(y + labels[r], right, (int64_t) 1);
        });
    });
}

}  // namespace KERNELS
}  // namespace vera
