// Products in float32 that read W's rows where they are. Every result is the dot product of a row of x and a row of W:
// LANES partial sums in the order of k, then the sum of the lanes in pairs. So a result does not depend on the rows, or
// columns, that are computed with it: a text's tokens give the same bits one by one, all at once, or among those of
// other texts.
//
// One row of x meets the quantised blocks in registers: W is read once, along its rows, and memory is the bound. For
// more rows, a strip of W is unpacked into the second-level cache and meets them all, ACROSS × DOWN results at a time:
// DOWN + ACROSS loads for DOWN · ACROSS multiplications.
#pragma once

#include "product.hpp"
#include "unpack.hpp"

namespace vera {
namespace KERNELS {

enum {
    DOWN = 4,                          // rows of x
    ACROSS = REGISTERS == 32 ? 6 : 3,  // rows of W, which are columns of the result
    BESIDE = 2,                        // rows of W that one row of x meets together
    COLS   = 12,                       // columns of a strip
};

// c[i][j] = Σ_k x[i][k] w[j][k] for R rows of each.
template <int R, int C> __attribute__((flatten)) static void dots(int64_t k, const float * x, int64_t ldx,
                                                                  const float * w, int64_t ldw, float * c,
                                                                  int64_t ldc) {
    vf acc[R][C];
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
#pragma GCC unroll 8
        for (int j = 0; j < C; j++) {
            acc[i][j] = vf{};
        }
    }
    by_vectors(k, [&](int64_t p, auto some) {
        vf wj[C];
#pragma GCC unroll 8
        for (int j = 0; j < C; j++) {
            wj[j] = load(w + j * ldw + p, some);
            in_register(wj[j]);
        }
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            const vf xi = load(x + i * ldx + p, some);
#pragma GCC unroll 8
            for (int j = 0; j < C; j++) {
                acc[i][j] = fused(xi, wj[j], acc[i][j]);
            }
            loads_end();
        }
    });
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
#pragma GCC unroll 8
        for (int j = 0; j < C; j++) {
            c[i * ldc + j] = in_pairs(acc[i][j]);
        }
    }
}

template <int R> static void dots_across(int64_t n, int64_t k, const float * x, int64_t ldx, const float * w,
                                         int64_t ldw, float * c, int64_t ldc) {
    enum { C = R == 1 && ACROSS < 4 ? 8 : ACROSS };  // a single row would wait for its own sums
    for (; n >= C; n -= C, w += C * ldw, c += C) {
        dots<R, C>(k, x, ldx, w, ldw, c, ldc);
    }
    for (; n > 0; n--, w += ldw, c++) {
        dots<R, 1>(k, x, ldx, w, ldw, c, ldc);
    }
}

// The same for quantised rows of W and one row of x.
template <unsigned TYPE, int C>
__attribute__((flatten)) static void quant_dots(int64_t k, const float * x, const char * w, int64_t stride,
                                                int64_t block, size_t size, float * c) {
    vf acc[C];
#pragma GCC unroll 4
    for (int j = 0; j < C; j++) {
        acc[j] = vf{};
    }
    const char * next = w + C * stride;  // prefetched: the processor does not predict parallel rows
    for (int64_t p = 0; p < k; p += block, w += size) {
        prefetch(next, C * size);
        next += C * size;
        for (int64_t part = 0; part < block / 32; part++, x += 32) {
            vf xs[32 / LANES];
#pragma GCC unroll 8
            for (int i = 0; i < 32 / LANES; i++) {
                xs[i] = load(x + i * LANES);
            }
#pragma GCC unroll 4
            for (int j = 0; j < C; j++) {
                alignas(32) int8_t q[32];
                const quants       of = quants_of(TYPE, w + j * stride, (int) part);
                memcpy(q, of.q, 32);
#pragma GCC unroll 8
                for (int i = 0; i < 32 / LANES; i++) {
                    const int half = i * LANES / 16;
                    acc[j]         = fused(xs[i], widened(q + i * LANES) * of.d[half] + of.m[half], acc[j]);
                }
            }
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < C; j++) {
        c[j] = in_pairs(acc[j]);
    }
}

template <unsigned TYPE> static void quant_dots(const ggml_tensor * w, int64_t n0, int64_t n, const float * x,
                                                float * c) {
    const int64_t block = ggml_blck_size(w->type), stride = w->nb[1];
    const size_t  size = ggml_type_size(w->type);
    int64_t       j    = 0;
    for (; j + BESIDE <= n; j += BESIDE) {
        quant_dots<TYPE, BESIDE>(w->ne[0], x, row(w, n0 + j), stride, block, size, c + j);
    }
    for (; j < n; j++) {
        quant_dots<TYPE, 1>(w->ne[0], x, row(w, n0 + j), stride, block, size, c + j);
    }
}

static void quant_dots(const ggml_tensor * w, int64_t n0, int64_t n, const float * x, float * c) {
    switch (w->type) {
    case Q4_0: quant_dots<Q4_0>(w, n0, n, x, c); break;
    case Q4_1: quant_dots<Q4_1>(w, n0, n, x, c); break;
    case Q5_0: quant_dots<Q5_0>(w, n0, n, x, c); break;
    case Q5_1: quant_dots<Q5_1>(w, n0, n, x, c); break;
    case Q8_0: quant_dots<Q8_0>(w, n0, n, x, c); break;
    case Q4_K: quant_dots<Q4_K>(w, n0, n, x, c); break;
    case Q5_K: quant_dots<Q5_K>(w, n0, n, x, c); break;
    case Q6_K: quant_dots<Q6_K>(w, n0, n, x, c); break;
    }
}

// Computes the product strip by strip, and calls use as multiply does.
template <typename F> static void multiply_dots(const thread & t, const product & p, F use) {
    const ggml_tensor * w      = p.b.t;
    const lines         a      = prepare<false>(t, p);
    const float *       x      = (const float *) a.words;
    const bool          single = p.m == 1 && has_quants(w->type), in_place = w->type == F32;
    // rows of a strip must not fall into the same sets of the cache
    const int64_t stride = (p.k + LANES - 1) / LANES * LANES + LANES;
    const int64_t fair = p.n / (4 * t.nth) / COLS, width = single ? COLS * (fair < 1 ? 1 : fair > 8 ? 8 : fair) : COLS;
    float *       c = (float *) t.scratch((CHUNK * COLS + (single || in_place ? 0 : COLS * stride)) * sizeof(float)),
          *strip    = c + CHUNK * COLS;
    for (int64_t n0; (n0 = t.take() * width) < p.n;) {
        const int64_t cols = p.n - n0 < width ? p.n - n0 : width;
        if (single) {
            quant_dots(w, n0, cols, x, c);
            use(0, 1, n0, cols, c, COLS);
            continue;
        }
        const float * rows_of_w = in_place ? (const float *) row(w, n0) : strip;
        const int64_t ld        = in_place ? (int64_t) w->nb[1] / 4 : stride;
        for (int64_t j = 0; j < cols && !in_place; j++) {
            unpack(w, row(w, n0 + j), strip + j * stride, p.k);
        }
        for (int64_t r = 0; r < p.m; r += CHUNK) {
            const int64_t rows = p.m - r < CHUNK ? p.m - r : CHUNK;
            int64_t       i    = 0;
            for (; i + DOWN <= rows; i += DOWN) {
                dots_across<DOWN>(cols, p.k, x + (r + i) * a.stride, a.stride, rows_of_w, ld, c + i * COLS, COLS);
            }
            for (; i < rows; i++) {
                dots_across<1>(cols, p.k, x + (r + i) * a.stride, a.stride, rows_of_w, ld, c + i * COLS, COLS);
            }
            use(r, rows, n0, cols, c, COLS);
        }
    }
}

}  // namespace KERNELS
}  // namespace vera
