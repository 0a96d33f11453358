// A mixture of experts. Every row chooses `used` of W's matrices. Results of its choices stand side by side: choice j
// of row r is row r · used + j. bindings/experts.go has formulas and shapes.
#pragma once

#include "linear.hpp"
#include "rows.hpp"

namespace vera {
namespace KERNELS {

// For each row, the experts that it chose, then their weights: [2 · used, rows], float32.
struct routing {
    const ggml_tensor * t;
    int64_t             used, rows;

    explicit routing(const ggml_tensor * t) : t(t), used(t->ne[0] / 2), rows(t->ne[1]) {}

    int64_t expert(int64_t r, int64_t j) const { return (int64_t) ((const float *) row(t, r))[j]; }
    float   weight(int64_t r, int64_t j) const { return ((const float *) row(t, r))[used + j]; }
};

// The `used` largest logits of each row, of equal ones the first, and their softmax. Source: logits.
static void route(const thread & t, ggml_tensor * dst) {
    const int64_t n = t.src[0]->ne[0], used = dst->ne[0] / 2;
    each_row(t, t.src[0], [&](int64_t r) {
        const float * x      = (const float *) row(t.src[0], r);
        float *       chosen = (float *) row(dst, r), *weights = chosen + used;
        char *        taken = (char *) t.scratch(n);
        memset(taken, 0, n);
        double total = 0;
        for (int64_t j = 0; j < used; j++) {
            int64_t best = -1;
            for (int64_t i = 0; i < n; i++) {
                if (!taken[i] && (best < 0 || x[i] > x[best])) {
                    best = i;
                }
            }
            taken[best] = 1;
            chosen[j]   = (float) best;
            weights[j]  = std::exp(x[best] - x[(int64_t) chosen[0]]);
            total += weights[j];
        }
        for (int64_t j = 0; j < used; j++) {
            weights[j] = (float) (weights[j] / total);
        }
    });
}

// With the gradient dw_j = dy_j · h_j of each weight w_j: w_j (dw_j − Σ w dw) for the experts of a row, 0 for the
// others. Sources: dy, h, routes.
static void route_back(const thread & t, ggml_tensor * dst) {
    const ggml_tensor *dy = t.src[0], *h = t.src[1];
    const routing      routes(t.src[2]);
    each_row(t, dst, [&](int64_t r) {
        float *dx = (float *) row(dst, r), *dw = (float *) t.scratch(routes.used * sizeof(float));
        memset(dx, 0, dst->ne[0] * sizeof(float));
        double mean = 0;
        for (int64_t j = 0; j < routes.used; j++) {
            const int64_t choice = r * routes.used + j;
            typed(dy, choice, [&](auto * g) {
                typed(h, choice, [&](auto * y) {
                    dw[j] = (float) sum_of(h->ne[0],
                                           [&](int64_t i, auto some) { return load(g + i, some) * load(y + i, some); });
                });
            });
            mean += (double) routes.weight(r, j) * dw[j];
        }
        for (int64_t j = 0; j < routes.used; j++) {
            dx[routes.expert(r, j)] = (float) (routes.weight(r, j) * (dw[j] - mean));
        }
    });
}

// y = w h for each choice. Sources: h, routes.
static void weigh(const thread & t, ggml_tensor * dst) {
    const ggml_tensor * h = t.src[0];
    const routing       routes(t.src[1]);
    each_row(t, dst, [&](int64_t r) {
        const vf w = splat(routes.weight(r / routes.used, r % routes.used));
        typed(h, r, [&](auto * x) {
            typed(dst, r, [&](auto * y) {
                by_vectors(h->ne[0], [&](int64_t i, auto some) { store(y + i, w * load(x + i, some), some); });
            });
        });
    });
}

// W_e x for each choice of a row x, or with `sum` the sum of W_e x over the choices x of a row; with `back`, Wᵀ for W.
// One expert after the other meets all rows that chose it. So a matrix is unpacked once at most, and a row is summed in
// the order of the experts. Sources: w [in, out, experts], x, routes, acc or NULL.
static void experts(const thread & t, const ggml_vera_experts & with, ggml_tensor * dst) {
    const ggml_tensor *w = t.src[0], *x = t.src[1], *acc = t.src[3];
    const routing      routes(t.src[2]);
    const bool         back = with.back, sum = with.sum, half = x->type == BF16;
    const int64_t      n = w->ne[2], choices = routes.rows * routes.used;
    // The choices of each expert, in order, and the rows that made them.
    if (t.ith == 0) {
        int32_t *ends = (int32_t *) t.parts((n + 1 + 2 * choices) * sizeof(int32_t)), *of = ends + n + 1,
                *rows = of + choices;
        memset(ends, 0, (n + 1) * sizeof(int32_t));
        const auto each = [&](auto f) {
            for (int64_t r = 0; r < routes.rows; r++) {
                for (int64_t j = 0; j < routes.used; j++) {
                    f(routes.expert(r, j), r, j);
                }
            }
        };
        each([&](int64_t e, int64_t, int64_t) { ends[e + 1]++; });
        for (int64_t e = 0; e < n; e++) {
            ends[e + 1] += ends[e];
        }
        each([&](int64_t e, int64_t r, int64_t j) {
            of[ends[e]]     = (int32_t) (r * routes.used + j);
            rows[ends[e]++] = (int32_t) r;
        });
    }
    if (sum) {
        each_row(t, dst, [&](int64_t r) {
            if (acc) {
                memcpy(row(dst, r), row(acc, r), dst->ne[0] * sizeof(float));
            } else {
                memset(row(dst, r), 0, dst->ne[0] * sizeof(float));
            }
        });
    }
    t.barrier();
    const int32_t *ends = (const int32_t *) t.parts(0), *of = ends + n + 1, *rows = of + choices,
                  *from = sum ? of : rows, *to = sum ? rows : of;
    int64_t start = 0;
    for (int64_t e = 0; e < n; e++) {
        const int64_t count = ends[e] - start;
        if (count == 0) {
            continue;
        }
        ggml_tensor matrix = *w;
        matrix.data        = (char *) w->data + e * w->nb[2];
        const int64_t cols = w->ne[!back];
        product       p    = {
            count, cols, w->ne[back], { x, true }, { &matrix, !back }, nullptr, strip_width(t, w, back, half, cols),
            GROUP
        };
        p.rows = from + start;
        multiply(t, p, half, with.way, [&](int64_t r, int64_t some, int64_t n0, int64_t cols, float * c, int64_t ldc) {
            for (int64_t i = 0; i < some; i++, c += ldc) {
                const int64_t y_row = to[start + r + i];
                if (!sum) {
                    put(dst, row(dst, y_row) + n0 * (dst->type == BF16 ? 2 : 4), c, cols);
                    continue;
                }
                float * y = (float *) row(dst, y_row) + n0;
                for (int64_t j = 0; j < cols; j++) {
                    y[j] += c[j];
                }
            }
        });
        t.barrier();
        start = ends[e];
    }
}

}  // namespace KERNELS
}  // namespace vera
