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
#if HAS_BF16 && defined(__x86_64__)
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
            loads_end();
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

#if PAIRED

// The same for pairs of rows and of columns. BFMMLA multiplies 2 × 4 values of A by 4 × 2 of B: two words of k of
// either row, by two words of either column, which stand side by side. Products of bfloat16 are exact in float32; their
// sums are rounded to odd, pair by pair (the last bit becomes 1 unless nothing is lost), which is off by one unit at
// most, without a bias; subnormal values count as 0. R pairs of rows, of which the last may have one
// row only, times half a panel: R + 4 loads for 4 R multiplications.
template <int R> static void paired_tile(int64_t rows, int64_t k, const int32_t * a, int64_t stride, const int32_t * b,
                                         const place & to) {
    float32x4_t acc[R][4];
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            acc[i][j] = vdupq_n_f32(0);
        }
    }
    for (int64_t p = 0; p < k; p += 2, a += 4, b += 2 * PANEL) {
        bfloat16x8_t w[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            w[j] = vld1q_bf16((const bfloat16_t *) (b + 4 * j));
        }
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            const bfloat16x8_t x = vld1q_bf16((const bfloat16_t *) (a + 2 * i * stride));
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                acc[i][j] = vbfmmlaq_f32(acc[i][j], x, w[j]);
            }
            loads_end();
        }
    }
    const auto put = [&](int64_t i, int j, float32x4_t v) {
        float * c = to.c + i * to.ldc + j;
        vst1q_f32(c, to.add ? vaddq_f32(vld1q_f32(c), v) : v);
    };
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
#pragma GCC unroll 2
        for (int j = 0; j < 4; j += 2) {
            const float64x2_t left = vreinterpretq_f64_f32(acc[i][j]), right = vreinterpretq_f64_f32(acc[i][j + 1]);
            put(2 * i, 2 * j, vreinterpretq_f32_f64(vzip1q_f64(left, right)));
            if (2 * i + 1 < rows) {
                put(2 * i + 1, 2 * j, vreinterpretq_f32_f64(vzip2q_f64(left, right)));
            }
        }
    }
}

// paired_tile for any number of rows and a whole panel.
static void paired_tiles(int64_t rows, int64_t k, const int32_t * a, int64_t stride, const int32_t * b,
                         const place & to) {
    enum { MOST = 12 };
    for (int64_t i = 0; i < rows; i += MOST, a += MOST * stride) {
        const int64_t some = rows - i < MOST ? rows - i : MOST;
        for (int j = 0; j < PANEL; j += 8) {
            const place part = to.offset(i, j);
            switch ((some + 1) / 2) {
            case 1: paired_tile<1>(some, k, a, stride, b + 2 * j, part); break;
            case 2: paired_tile<2>(some, k, a, stride, b + 2 * j, part); break;
            case 3: paired_tile<3>(some, k, a, stride, b + 2 * j, part); break;
            case 4: paired_tile<4>(some, k, a, stride, b + 2 * j, part); break;
            case 5: paired_tile<5>(some, k, a, stride, b + 2 * j, part); break;
            case 6: paired_tile<6>(some, k, a, stride, b + 2 * j, part); break;
            }
        }
    }
}

// Places words w and w + 1 of two rows side by side, for k words of each, an even number. buf has room for them.
static inline void pair_rows(int32_t * rows, int64_t k, int32_t * buf) {
    memcpy(buf, rows, 2 * k * sizeof *rows);
    for (int64_t w = 0; w < k; w += 2) {
        memcpy(rows + 2 * w, buf + w, 8);
        memcpy(rows + 2 * w + 2, buf + k + w, 8);
    }
}

// The same for the columns of k words of a panel.
static inline void pair_columns(int32_t * panel, int64_t k) {
    for (int64_t w = 0; w < k; w += 2, panel += 2 * PANEL) {
        int32x4_t even[PANEL / 4], odd[PANEL / 4];
        for (int j = 0; j < PANEL / 4; j++) {
            even[j] = vld1q_s32(panel + 4 * j);
            odd[j]  = vld1q_s32(panel + PANEL + 4 * j);
        }
        for (int j = 0; j < PANEL / 4; j++) {
            vst1q_s32(panel + 8 * j, vzip1q_s32(even[j], odd[j]));
            vst1q_s32(panel + 8 * j + 4, vzip2q_s32(even[j], odd[j]));
        }
    }
}

#endif

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
