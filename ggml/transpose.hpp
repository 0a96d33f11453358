// Transposes matrices in registers.
#pragma once

#include "vectors.hpp"

namespace vera {
namespace KERNELS {

// to[j][i] = from[i][j] for LANES × LANES 32-bit words.
template <typename T> static inline void transpose(const T * from, int64_t ldf, T * to, int64_t ldt) {
#if LANES == 16 && defined(__x86_64__)
    __m512i r[16], t[16];
    for (int i = 0; i < 16; i++) {
        r[i] = _mm512_loadu_si512(from + i * ldf);
    }
    for (int i = 0; i < 16; i += 2) {
        t[i]     = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i]     = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i]      = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4]  = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8]  = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        _mm512_storeu_si512(to + i * ldt, _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88));
        _mm512_storeu_si512(to + (i + 8) * ldt, _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd));
    }
#elif LANES == 8 && defined(__x86_64__)
    __m256 r[8], t[8];
    for (int i = 0; i < 4; i++) {  // half rows: each vector joins rows i and i + 4
        const float *above = (const float *) from + i * ldf, *below = above + 4 * ldf;
        r[i]     = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(above)), _mm_loadu_ps(below), 1);
        r[i + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(above + 4)), _mm_loadu_ps(below + 4), 1);
    }
    for (int i = 0; i < 8; i += 4) {
        t[i]     = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
        t[i + 2] = _mm256_unpacklo_ps(r[i + 2], r[i + 3]);
        t[i + 3] = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
        _mm256_storeu_ps((float *) to + (i + 0) * ldt, _mm256_shuffle_ps(t[i], t[i + 2], 0x44));
        _mm256_storeu_ps((float *) to + (i + 1) * ldt, _mm256_shuffle_ps(t[i], t[i + 2], 0xee));
        _mm256_storeu_ps((float *) to + (i + 2) * ldt, _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44));
        _mm256_storeu_ps((float *) to + (i + 3) * ldt, _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee));
    }
#elif defined(__aarch64__)
    const int32_t * words = (const int32_t *) from;
    const int32x4_t a = vld1q_s32(words), b = vld1q_s32(words + ldf), c = vld1q_s32(words + 2 * ldf),
                    d  = vld1q_s32(words + 3 * ldf);
    const int32x4_t ac = vzip1q_s32(a, c), bd = vzip1q_s32(b, d), ac2 = vzip2q_s32(a, c), bd2 = vzip2q_s32(b, d);
    vst1q_s32((int32_t *) to, vzip1q_s32(ac, bd));
    vst1q_s32((int32_t *) to + ldt, vzip2q_s32(ac, bd));
    vst1q_s32((int32_t *) to + 2 * ldt, vzip1q_s32(ac2, bd2));
    vst1q_s32((int32_t *) to + 3 * ldt, vzip2q_s32(ac2, bd2));
#else
    for (int j = 0; j < LANES; j++) {
        for (int i = 0; i < LANES; i++) {
            to[j * ldt + i] = from[i * ldf + j];
        }
    }
#endif
}

// to[n, m] = from[m, n]ᵀ, rounded up to whole vectors in both dimensions.
static void transpose(int64_t m, int64_t n, const float * from, int64_t ldf, float * to, int64_t ldt) {
    for (int64_t i = 0; i < m; i += LANES) {
        for (int64_t j = 0; j < n; j += LANES) {
            transpose(from + i * ldf + j, ldf, to + j * ldt + i, ldt);
        }
    }
}

// Two rows of 16 bytes, side by side.
typedef uint8_t lots __attribute__((vector_size(32)));

// Transposes the 16 × 16 bytes on the left and those on the right. Four times, it interleaves every vector of the first
// half with its counterpart in the second.
static inline void transpose(lots (&v)[16]) {
#pragma GCC        unroll 4
    for (int round = 0; round < 4; round++) {
        lots next[16];
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
#if defined(__aarch64__)
            uint8x16_t a[2], b[2];
            memcpy(a, &v[i], sizeof a);
            memcpy(b, &v[i + 8], sizeof b);
            const uint8x16_t low[2]  = { vzip1q_u8(a[0], b[0]), vzip1q_u8(a[1], b[1]) },
                             high[2] = { vzip2q_u8(a[0], b[0]), vzip2q_u8(a[1], b[1]) };
            memcpy(&next[2 * i], low, sizeof low);
            memcpy(&next[2 * i + 1], high, sizeof high);
#else
            next[2 * i] = __builtin_shufflevector(v[i], v[i + 8], 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7,
                                                  39, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55);
            next[2 * i + 1] =
                __builtin_shufflevector(v[i], v[i + 8], 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47,
                                        24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63);
#endif
        }
        memcpy(v, next, sizeof next);
    }
}

}  // namespace KERNELS
}  // namespace vera
