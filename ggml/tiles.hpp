// Tiles of a matrix product: a few rows of A, read where they are, times a panel of B, in which PANEL columns are
// interleaved.
#pragma once

#include "vectors.hpp"

namespace vera {
namespace KERNELS {

enum {
    VECTORS = REGISTERS / 8,    // vectors in a row of a panel
    PANEL   = VECTORS * LANES,  // columns of a panel
    ROWS    = 6,                // rows of A in a tile
};

// Where a part of C goes, and whether it is added to what stands there.
struct place {
    float * c;
    int64_t ldc;
    bool    add;

    place offset(int64_t i, int64_t j) const { return { c + i * ldc + j, ldc, add }; }
};

// c[i][j] (+)= Σ_k a[i][k] b[k][j] for R rows of A and one panel of B. k counts 32-bit words.
template <bool HALF, int R> static void tile(int64_t k, const int32_t * a, int64_t stride, const int32_t * b,
                                             const place & to) {
    vf acc[R][VECTORS];
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; j++) {
            acc[i][j] = vf{};
        }
    }
    for (int64_t p = 0; p < k; p++, a++, b += PANEL) {
        vf w[VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; j++) {
            w[j] = load((const float *) b + j * LANES);
        }
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
#if HAS_BF16
            if (HALF) {
                __m512bh x = (__m512bh) _mm512_set1_epi32(a[i * stride]);
#pragma GCC unroll 4
                for (int j = 0; j < VECTORS; j++) {
                    acc[i][j] = (vf) _mm512_dpbf16_ps((__m512) acc[i][j], x, (__m512bh) w[j]);
                }
                continue;
            }
#endif
            float x;
            memcpy(&x, a + i * stride, 4);
#pragma GCC unroll 4
            for (int j = 0; j < VECTORS; j++) {
                acc[i][j] += splat(x) * w[j];
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; j++) {
            float * c = to.c + i * to.ldc + j * LANES;
            store(c, to.add ? load(c) + acc[i][j] : acc[i][j]);
        }
    }
}

// tile for any number of rows.
template <bool HALF> static void tiles(int64_t rows, int64_t k, const int32_t * a, int64_t stride, const int32_t * b,
                                       const place & to) {
    int64_t i = 0;
    for (; i + ROWS <= rows; i += ROWS) {
        tile<HALF, ROWS>(k, a + i * stride, stride, b, to.offset(i, 0));
    }
    a += i * stride;
    const place last = to.offset(i, 0);
    switch (rows - i) {
    case 1: tile<HALF, 1>(k, a, stride, b, last); break;
    case 2: tile<HALF, 2>(k, a, stride, b, last); break;
    case 3: tile<HALF, 3>(k, a, stride, b, last); break;
    case 4: tile<HALF, 4>(k, a, stride, b, last); break;
    case 5: tile<HALF, 5>(k, a, stride, b, last); break;
    }
}

}  // namespace KERNELS
}  // namespace vera
