// A causal convolution of every column along the rows of each text: y[r] = Σ w[taps − 1 − i] ⊙ x[the row i before r],
// over the rows that exist. bindings/convolution.go has the shapes. A thread takes some columns of all rows: each
// element is read from memory once, and again only while it is in the cache, and every sum has one order.
#pragma once

#include "rows.hpp"

namespace vera {
namespace KERNELS {

enum {
    CHANNELS = 256,  // columns that are processed together
    TAPS     = 16,   // the most rows in a sum
};

// Calls f(start, columns, weights): CHANNELS weights of the row itself, then of the row before it, and so on.
template <typename F> static void each_channels(const thread & t, const ggml_tensor * w, F f) {
    const int64_t taps = w->ne[0], n = w->ne[1];
    float *       weights = (float *) t.scratch(TAPS * CHANNELS * sizeof(float));
    for (int64_t start; (start = t.take() * CHANNELS) < n;) {
        const int64_t count = n - start < CHANNELS ? n - start : CHANNELS;
        for (int64_t c = 0; c < count; c++) {
            const float * of = (const float *) row(w, start + c);
            for (int64_t i = 0; i < taps; i++) {
                weights[i * CHANNELS + c] = of[taps - 1 - i];
            }
        }
        f(start, count, weights);
    }
}

// Calls f(row, rows, n) for all rows of a pack: `rows` are itself and those before it that are in its sum.
template <typename F> static void each_tap(const ggml_tensor * tree, int64_t taps, F f) {
    const auto * segments = (const segment *) tree->data;
    for (int64_t s = 0; s < tree->ne[1]; s++) {
        for (int64_t i = 0; i < segments[s].length; i++) {
            int64_t rows[TAPS], n = 0, run = s, p = i;
            for (; n < taps; n++, p--) {
                while (p < 0 && (run = segments[run].parent) >= 0) {
                    p += segments[run].length;
                }
                if (run < 0) {
                    break;
                }
                rows[n] = segments[run].first + p;
            }
            f(segments[s].first + i, rows, n);
        }
    }
}

// Sources: x, w, segments.
static void convolution(const thread & t, ggml_tensor * dst) {
    const ggml_tensor *x = t.src[0], *w = t.src[1];
    each_channels(t, w, [&](int64_t start, int64_t count, const float * weights) {
        each_tap(t.src[2], w->ne[0], [&](int64_t r, const int64_t * rows, int64_t n) {
            typed(x, 0, [&](auto * first) {
                typed(dst, r, [&](auto * y) {
                    by_vectors(count, [&](int64_t c, auto some) {
                        vf sum = vf{};
                        for (int64_t i = 0; i < n; i++) {
                            sum = fused(load(weights + i * CHANNELS + c, some),
                                        load((decltype(first)) row(x, rows[i]) + start + c, some), sum);
                        }
                        store(y + start + c, sum, some);
                    });
                });
            });
        });
    });
}

// Sources: dy, w, segments.
static void convolution_back(const thread & t, ggml_tensor * dst) {
    const ggml_tensor *dy = t.src[0], *w = t.src[1];
    each_channels(t, w, [&](int64_t start, int64_t count, const float * weights) {
        for (int64_t r = 0; r < dst->ne[1]; r++) {
            memset((float *) row(dst, r) + start, 0, count * sizeof(float));
        }
        each_tap(t.src[2], w->ne[0], [&](int64_t r, const int64_t * rows, int64_t n) {
            typed(dy, r, [&](auto * g) {
                for (int64_t i = 0; i < n; i++) {
                    float * dx = (float *) row(dst, rows[i]) + start;
                    by_vectors(count, [&](int64_t c, auto some) {
                        store(dx + c,
                              fused(load(weights + i * CHANNELS + c, some), load(g + start + c, some),
                                    load(dx + c, some)),
                              some);
                    });
                }
            });
        });
    });
}

// Rows that continue texts; `rows` holds the text and position of each. state keeps the last taps − 1 rows of a text:
// row p in place p mod (taps − 1). Sources: x, w, state, rows.
static void convolution_cached(const thread & t, ggml_tensor * dst) {
    const ggml_tensor *x = t.src[0], *w = t.src[1], *state = t.src[2];
    const int32_t *    places = (const int32_t *) t.src[3]->data;
    const int64_t      kept   = w->ne[0] - 1;
    each_channels(t, w, [&](int64_t start, int64_t count, const float * weights) {
        for (int64_t r = 0; r < x->ne[1]; r++) {
            const int64_t text = places[2 * r], position = places[2 * r + 1], n = position < kept ? position : kept;
            const float * in    = (const float *) row(x, r) + start;
            const auto    place = [&](int64_t p) { return (float *) row(state, text * kept + p % kept) + start; };
            typed(dst, r, [&](auto * y) {
                by_vectors(count, [&](int64_t c, auto some) {
                    vf sum = fused(load(weights + c, some), load(in + c, some), vf{});
                    for (int64_t i = 1; i <= n; i++) {
                        sum = fused(load(weights + i * CHANNELS + c, some), load(place(position - i) + c, some), sum);
                    }
                    store(y + start + c, sum, some);
                });
            });
            memcpy(place(position), in, count * sizeof(float));
        }
    });
}

}  // namespace KERNELS
}  // namespace vera
