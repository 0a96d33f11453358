// Products of small matrices that are stored by rows, without packing.
#pragma once

#include "tiles.hpp"
#include "unpack.hpp"

namespace vera {
namespace KERNELS {

// n rounded up to whole vectors.
static inline int64_t whole(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

// c[R, V vectors] (+)= a[R, k] b[k, V vectors], where every row has a stride: tile without packing, and narrower if
// there are fewer columns.
template <int R, int V, typename T>
static void dense(int64_t k, const float * a, int64_t lda, const T * b, int64_t ldb, float * c, int64_t ldc, bool add) {
    vf acc[R][V];
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < V; j++) {
            acc[i][j] = vf{};
        }
    }
    for (int64_t p = 0; p < k; p++, a++, b += ldb) {
        vf w[V];
#pragma GCC unroll 4
        for (int j = 0; j < V; j++) {
            w[j] = load(b + j * LANES);
        }
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            const vf x = splat(a[i * lda]);
#pragma GCC unroll 4
            for (int j = 0; j < V; j++) {
                acc[i][j] = fused(x, w[j], acc[i][j]);
            }
            loads_end();
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < V; j++) {
            float * to = c + i * ldc + j * LANES;
            store(to, add ? load(to) + acc[i][j] : acc[i][j]);
        }
    }
}

template <int V, typename T>
static void dense_rows(int64_t m, int64_t k, const float * a, int64_t lda, const T * b, int64_t ldb, float * c,
                       int64_t ldc, bool add) {
    for (; m >= ROWS; m -= ROWS, a += ROWS * lda, c += ROWS * ldc) {
        dense<ROWS, V>(k, a, lda, b, ldb, c, ldc, add);
    }
    switch (m) {
    case 1: dense<1, V>(k, a, lda, b, ldb, c, ldc, add); break;
    case 2: dense<2, V>(k, a, lda, b, ldb, c, ldc, add); break;
    case 3: dense<3, V>(k, a, lda, b, ldb, c, ldc, add); break;
    case 4: dense<4, V>(k, a, lda, b, ldb, c, ldc, add); break;
    case 5: dense<5, V>(k, a, lda, b, ldb, c, ldc, add); break;
    }
}

// c[m, n] (+)= a[m, k] b[k, n] for whole vectors of columns; b is float or half.
template <typename T>
static void dense(int64_t m, int64_t n, int64_t k, const float * a, int64_t lda, const T * b, int64_t ldb, float * c,
                  int64_t ldc, bool add) {
    for (; n > 0; n -= PANEL, b += PANEL, c += PANEL) {
        switch (n < PANEL ? n / LANES : VECTORS) {
        case 1: dense_rows<1>(m, k, a, lda, b, ldb, c, ldc, add); break;
        case 2: dense_rows<2>(m, k, a, lda, b, ldb, c, ldc, add); break;
        case 3: dense_rows<(VECTORS < 3 ? VECTORS : 3)>(m, k, a, lda, b, ldb, c, ldc, add); break;
        case 4: dense_rows<VECTORS>(m, k, a, lda, b, ldb, c, ldc, add); break;
        }
    }
}

}  // namespace KERNELS
}  // namespace vera
