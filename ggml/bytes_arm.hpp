// Arm's way to multiply the bytes of bytes.hpp: four products at a time are added up (SDOT), or 2 × 8 values are
// multiplied by 8 × 2 (SMMLA). The sums of a block are exact, and what is done with them is the same here as there.
#pragma once

#include "unpack.hpp"

#if defined(__aarch64__)

namespace vera {
namespace KERNELS {

enum {
    ARM_COLS   = 16,  // columns of a strip
    ARM_BLOCKS = 32,  // blocks that are paired at a time
};

// sum + the sums of four products each.
static inline int32x4_t dot(int32x4_t sum, int8x16_t a, int8x16_t b) {
#if HAS_DOT
    return vdotq_s32(sum, a, b);
#else
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
    return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#endif
}

// The same with 4 values of b for all of a.
template <int LANE> static inline int32x4_t dot_lane(int32x4_t sum, int8x16_t a, int8x16_t b) {
#if HAS_DOT
    return vdotq_laneq_s32(sum, a, b, LANE);
#else
    return dot(sum, a, vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(b), LANE)));
#endif
}

template <int LANE> struct lane_of {
    enum { value = LANE };
};

template <typename F> static inline void each_lane(F f) {
    f(lane_of<0>());
    f(lane_of<1>());
    f(lane_of<2>());
    f(lane_of<3>());
}

static inline int8x16_t load_signed(const void * p) { return vld1q_s8((const int8_t *) p); }

static inline float32x4_t plus_product(float32x4_t sum, float32x4_t a, float32x4_t b) { return vfmaq_f32(sum, a, b); }

// Transposes 4 words of 4 bytes of 4 rows.
static inline void transpose_words(int32x4_t (&r)[4]) {
    const int32x4_t ac = vzip1q_s32(r[0], r[2]), bd = vzip1q_s32(r[1], r[3]), ac2 = vzip2q_s32(r[0], r[2]),
                    bd2 = vzip2q_s32(r[1], r[3]);
    r[0]                = vzip1q_s32(ac, bd);
    r[1]                = vzip2q_s32(ac, bd);
    r[2]                = vzip1q_s32(ac2, bd2);
    r[3]                = vzip2q_s32(ac2, bd2);
}

// Rounds 16 values times `by` to the nearest integers, ties to even. Returns their sum.
static inline int32_t round_bytes(const float * x, float by, int8_t * to) {
    int32x4_t v[4];
    for (int i = 0; i < 4; i++) {
        v[i] = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4 * i), by));
    }
    const int16x8_t low  = vcombine_s16(vqmovn_s32(v[0]), vqmovn_s32(v[1])),
                    high = vcombine_s16(vqmovn_s32(v[2]), vqmovn_s32(v[3]));
    vst1q_s8(to, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
    return vaddlvq_s16(low) + vaddlvq_s16(high);
}

// Part `part` of a block of R rows. The 6 bits of Q6_K become unsigned, as in interleave_any.
template <unsigned TYPE, int R> struct rows_of_bytes {
    enum { PLAIN = TYPE == Q4_0 || TYPE == Q4_1 || TYPE == Q8_0, HALVES = TYPE == Q6_K ? 2 : 1 };
    int8x16_t q[R][2];
    float     d[HALVES][4], m[HALVES][4];

    rows_of_bytes(const char * const * rows, int64_t offset, int part) {
        if (PLAIN) {
            plain(rows, offset);
            return;
        }
#pragma GCC unroll 4
        for (int i = 0; i < R; i++) {
            const quants of = quants_of(TYPE, rows[i] + offset, part);
            for (int half = 0; half < 2; half++) {
                const bytes v = TYPE == Q6_K ? of.q[half] + 32 : of.q[half];
                memcpy(&q[i][half], &v, 16);
            }
            for (int half = 0; half < HALVES; half++) {
                d[half][i] = of.d[half];
                m[half][i] = TYPE == Q6_K ? -32 * of.d[half] : of.m[half];
            }
        }
    }

    void plain(const char * const * rows, int64_t offset) {
        enum { FIRST = TYPE == Q4_1 ? 4 : 2 };
        uint16_t scales[4] = {}, minima[4] = {};
#pragma GCC unroll 4
        for (int i = 0; i < R; i++) {
            const char * block = rows[i] + offset;
            memcpy(scales + i, block, 2);
            if (TYPE == Q8_0) {
                q[i][0] = load_signed(block + FIRST);
                q[i][1] = load_signed(block + FIRST + 16);
                continue;
            }
            const uint8x16_t both = vld1q_u8((const uint8_t *) block + FIRST);
            q[i][0]               = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
            q[i][1]               = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
            if (TYPE == Q4_1) {
                memcpy(minima + i, block + 2, 2);
            }
        }
        const float32x4_t scale = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(scales)));
        vst1q_f32(d[0], scale);
        vst1q_f32(m[0], TYPE == Q4_1 ? vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(minima))) : vmulq_n_f32(scale, -8));
    }
};

// c[i][j] = Σ over all blocks of a strip's rows, read along, for R rows of x. A sum of four products each of four rows
// becomes one vector of their sums.
template <unsigned TYPE, typename KIND, int R, typename X>
__attribute__((flatten)) static void multiply_along(const char * const * rows, const char * next, int64_t n,
                                                    const X & x, int64_t row, float * c) {
    enum { HALVES = KIND::HALVES, PARTS = TYPE == Q4_K || TYPE == Q5_K || TYPE == Q6_K ? 8 : 1 };
    const size_t size = TYPE == Q4_0   ? 18
                        : TYPE == Q4_1 ? 20
                        : TYPE == Q5_0 ? 22
                        : TYPE == Q5_1 ? 24
                        : TYPE == Q8_0 ? 34
                        : TYPE == Q4_K ? 144
                        : TYPE == Q5_K ? 176
                                       : 210;
    for (int j = 0; j < ARM_COLS; j += 4) {
        float32x4_t acc[R];
#pragma GCC unroll 2
        for (int i = 0; i < R; i++) {
            acc[i] = vdupq_n_f32(0);
        }
        for (int64_t b = 0; b < n; b++) {
            const int64_t offset = b / PARTS * size;
            if (b % PARTS == 0) {
                __builtin_prefetch(next + (j * (n / PARTS) * size + 4 * offset));
                __builtin_prefetch(next + (j * (n / PARTS) * size + 4 * offset) + 64);
            }
            const rows_of_bytes<TYPE, 4> w(rows + j, offset, (int) (b % PARTS));
#pragma GCC unroll 2
            for (int half = 0; half < HALVES; half++) {
                const float32x4_t d = vld1q_f32(w.d[half]);
#pragma GCC unroll 2
                for (int i = 0; i < R; i++) {
                    const int8_t * r  = x.bytes_of_row(row + i) + b * 32;
                    const float *  of = x.sums_of_row(row + i)[b];
                    int32x4_t      s[4];
#pragma GCC unroll 4
                    for (int k = 0; k < 4; k++) {
                        s[k] = dot(vdupq_n_s32(0), w.q[k][half], load_signed(r + 16 * half));
                        if (HALVES == 1) {
                            s[k] = dot(s[k], w.q[k][1], load_signed(r + 16));
                        }
                    }
                    const int32x4_t sums = vpaddq_s32(vpaddq_s32(s[0], s[1]), vpaddq_s32(s[2], s[3]));
                    acc[i]               = plus_product(acc[i], vcvtq_f32_s32(sums), vmulq_n_f32(d, of[0]));
                    if (!KIND::SIGNED) {
                        acc[i] =
                            plus_product(acc[i], vld1q_f32(w.m[half]), vdupq_n_f32(of[HALVES == 2 ? 2 + half : 1]));
                    }
                }
            }
        }
#pragma GCC unroll 2
        for (int i = 0; i < R; i++) {
            vst1q_f32(c + i * ARM_COLS + j, acc[i]);
        }
    }
}

// c[i][j] += Σ over n blocks of a strip for R rows of x, whose blocks begin at `first`; at 0, c begins with 0. For each
// block, 2 R + 8 V loads for 8 R V multiplications of V vectors of 4 columns.
template <typename KIND, int R, typename W, typename X>
__attribute__((flatten)) static void multiply_dots_of_bytes(const W & w, int64_t n, const X & x, int64_t row,
                                                            int64_t first, float * c) {
    enum { V = R == 4 ? 2 : 4, HALVES = KIND::HALVES, QUADS = 2 / HALVES };
    const int8_t * r[R];
    const float (*of[R])[4];
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) {
        r[i]  = x.bytes_of_row(row + i) + first * 32;
        of[i] = x.sums_of_row(row + i) + first;
    }
    for (int j = 0; j < ARM_COLS / 4; j += V) {
        float32x4_t acc[R][V];
#pragma GCC unroll 4
        for (int i = 0; i < R; i++) {
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) {
                acc[i][v] = first > 0 ? vld1q_f32(c + i * ARM_COLS + 4 * (j + v)) : vdupq_n_f32(0);
            }
        }
        for (int64_t b = 0; b < n; b++) {
#pragma GCC unroll 2
            for (int half = 0; half < HALVES; half++) {
                int32x4_t sums[R][V];
#pragma GCC unroll 4
                for (int i = 0; i < R; i++) {
#pragma GCC unroll 4
                    for (int v = 0; v < V; v++) {
                        sums[i][v] = vdupq_n_s32(0);
                    }
                }
#pragma GCC unroll 2
                for (int quad = 0; quad < QUADS; quad++) {
                    const int first_word = 4 * (half * QUADS + quad);
                    int8x16_t four[R];
#pragma GCC unroll 4
                    for (int i = 0; i < R; i++) {
                        four[i] = load_signed(r[i] + b * 32 + 4 * first_word);
                    }
                    each_lane([&](auto lane) {
#pragma GCC unroll 4
                        for (int v = 0; v < V; v++) {
                            const int8x16_t q =
                                load_signed(w.q(b, (j + v) / 2, first_word + lane.value) + (j + v) % 2 * 16);
#pragma GCC unroll 4
                            for (int i = 0; i < R; i++) {
                                sums[i][v] = dot_lane<decltype(lane)::value>(sums[i][v], q, four[i]);
                            }
                        }
                    });
                }
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) {
                    const float32x4_t d = (float32x4_t) load(w.d(b, half) + 4 * (j + v));
#pragma GCC unroll 4
                    for (int i = 0; i < R; i++) {
                        acc[i][v] = plus_product(acc[i][v], vcvtq_f32_s32(sums[i][v]), vmulq_n_f32(d, of[i][b][0]));
                        if (!KIND::SIGNED) {
                            const float32x4_t m = vld1q_f32(w.m(b, half, (j + v) / 2) + (j + v) % 2 * 4);
                            acc[i][v] = plus_product(acc[i][v], m, vdupq_n_f32(of[i][b][HALVES == 2 ? 2 + half : 1]));
                        }
                    }
                }
            }
        }
#pragma GCC unroll 4
        for (int i = 0; i < R; i++) {
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) {
                vst1q_f32(c + i * ARM_COLS + 4 * (j + v), acc[i][v]);
            }
        }
    }
}

#if HAS_I8MM

// Some blocks of a strip for SMMLA: 8 values of each of two columns side by side.
template <int HALVES> struct paired_strip {
    alignas(64) int8_t bytes[ARM_BLOCKS][4][ARM_COLS / 2][16];
    float scales[ARM_BLOCKS][HALVES][ARM_COLS], minima[ARM_BLOCKS][HALVES][ARM_COLS];

    // Blocks first … first + n of rows.
    template <unsigned TYPE> __attribute__((flatten)) void take(const char * const * rows, size_t size, int64_t first,
                                                                int64_t n, const char * next) {
        enum { PARTS = TYPE == Q4_K || TYPE == Q5_K || TYPE == Q6_K ? 8 : 1 };
        for (int64_t b = 0; b < n; b++) {
            const int64_t offset = (first + b) / PARTS * size;
            for (size_t i = 0; i < size * ARM_COLS / PARTS; i += 64) {
                __builtin_prefetch(next + (first + b) * size * ARM_COLS / PARTS + i);
            }
            for (int j = 0; j < ARM_COLS; j += 2) {
                const rows_of_bytes<TYPE, 2> w(rows + j, offset, (int) ((first + b) % PARTS));
#pragma GCC unroll 2
                for (int half = 0; half < 2; half++) {
                    const int64x2_t x = vreinterpretq_s64_s8(w.q[0][half]), y = vreinterpretq_s64_s8(w.q[1][half]);
                    vst1q_s8(bytes[b][2 * half][j / 2], vreinterpretq_s8_s64(vzip1q_s64(x, y)));
                    vst1q_s8(bytes[b][2 * half + 1][j / 2], vreinterpretq_s8_s64(vzip2q_s64(x, y)));
                }
                for (int half = 0; half < HALVES; half++) {
                    vst1_f32(scales[b][half] + j, vld1_f32(w.d[half]));
                    vst1_f32(minima[b][half] + j, vld1_f32(w.m[half]));
                }
            }
        }
    }

    // Blocks first … first + n of an interleaved strip of Q8_0.
    template <typename W> void take(const W & w, int64_t first, int64_t n) {
        for (int64_t b = 0; b < n; b++) {
            for (int step = 0; step < 4; step++) {
                for (int j = 0; j < ARM_COLS / 4; j++) {
                    const auto word = [&](int group) {
                        return vreinterpretq_s32_s8(load_signed(w.q(first + b, j / 2, group) + j % 2 * 16));
                    };
                    const int32x4_t x = word(2 * step), y = word(2 * step + 1);
                    vst1q_s8(bytes[b][step][2 * j], vreinterpretq_s8_s32(vzip1q_s32(x, y)));
                    vst1q_s8(bytes[b][step][2 * j + 1], vreinterpretq_s8_s32(vzip2q_s32(x, y)));
                }
            }
            for (int j = 0; j < ARM_COLS; j += 4) {
                vst1q_f32(scales[b][0] + j, (float32x4_t) load(w.d(first + b, 0) + j));
            }
        }
    }
};

// [a a b b], where a and b are number `of` of two rows' four.
template <int OF> static inline float32x4_t pair_of(const float * a, const float * b) {
    return vcombine_f32(vdup_n_f32(a[OF]), vdup_n_f32(b[OF]));
}

// The left halves of two vectors, and their right halves.
static inline float32x4_t lefts(float32x4_t a, float32x4_t b) {
    return vreinterpretq_f32_f64(vzip1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

static inline float32x4_t rights(float32x4_t a, float32x4_t b) {
    return vreinterpretq_f32_f64(vzip2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

// c[i][j] += Σ over n blocks for `rows` rows of x, R pairs, the last of which may have one row only. Goes through 4
// pairs of columns at a time: for 16 values, 2 R + 8 loads for 8 R multiplications.
template <typename KIND, int R, typename X>
__attribute__((flatten)) static void multiply_pairs(const paired_strip<KIND::HALVES> & w, int64_t n, const X & x,
                                                    int64_t row, int64_t rows, int64_t first, float * c) {
    enum { HALVES = KIND::HALVES, STEPS = 4 / HALVES };
    const int8_t * r[2 * R];
    const float (*of[2 * R])[4];
#pragma GCC unroll 4
    for (int i = 0; i < 2 * R; i++) {
        const int64_t at = row + (i < rows ? i : i - 1);
        r[i]             = x.bytes_of_row(at) + first * 32;
        of[i]            = x.sums_of_row(at) + first;
    }
    for (int j = 0; j < ARM_COLS / 2; j += 4) {
        float32x4_t acc[R][4];
        const auto  at = [&](int i, int v) { return c + i * ARM_COLS + 2 * (j + v); };
#pragma GCC unroll 4
        for (int i = 0; i < R; i++) {
#pragma GCC unroll 2
            for (int v = 0; v < 4; v += 2) {
                float32x4_t a = vdupq_n_f32(0), b = a;
                if (first > 0) {
                    a = vld1q_f32(at(2 * i, v));
                    b = 2 * i + 1 < rows ? vld1q_f32(at(2 * i + 1, v)) : a;
                }
                acc[i][v]     = lefts(a, b);
                acc[i][v + 1] = rights(a, b);
            }
        }
        for (int64_t b = 0; b < n; b++) {
#pragma GCC unroll 2
            for (int half = 0; half < HALVES; half++) {
                int32x4_t sums[R][4];
#pragma GCC unroll 4
                for (int i = 0; i < R; i++) {
#pragma GCC unroll 4
                    for (int v = 0; v < 4; v++) {
                        sums[i][v] = vdupq_n_s32(0);
                    }
                }
#pragma GCC unroll 2
                for (int s = 0; s < STEPS; s += 2) {
                    const int step = half * STEPS + s;
                    int8x16_t q[2][4];
#pragma GCC unroll 4
                    for (int v = 0; v < 4; v++) {
                        q[0][v] = load_signed(w.bytes[b][step][j + v]);
                        q[1][v] = load_signed(w.bytes[b][step + 1][j + v]);
                    }
#pragma GCC unroll 4
                    for (int i = 0; i < R; i++) {
                        const int64x2_t even  = vreinterpretq_s64_s8(load_signed(r[2 * i] + b * 32 + step * 8)),
                                        odd   = vreinterpretq_s64_s8(load_signed(r[2 * i + 1] + b * 32 + step * 8));
                        const int8x16_t left  = vreinterpretq_s8_s64(vzip1q_s64(even, odd)),
                                        right = vreinterpretq_s8_s64(vzip2q_s64(even, odd));
#pragma GCC unroll 4
                        for (int v = 0; v < 4; v++) {
                            sums[i][v] = vmmlaq_s32(vmmlaq_s32(sums[i][v], left, q[0][v]), right, q[1][v]);
                        }
                        loads_end();
                    }
                }
                const auto twice = [&](const float (&from)[ARM_COLS], int v) {
                    return vreinterpretq_f32_f64(vld1q_dup_f64((const double *) (from + 2 * (j + v))));
                };
                float32x4_t d[4];
#pragma GCC unroll 4
                for (int v = 0; v < 4; v++) {
                    d[v] = twice(w.scales[b][half], v);
                }
#pragma GCC unroll 4
                for (int i = 0; i < R; i++) {
                    const float32x4_t e = pair_of<0>(of[2 * i][b], of[2 * i + 1][b]);
#pragma GCC unroll 4
                    for (int v = 0; v < 4; v++) {
                        acc[i][v] = plus_product(acc[i][v], vcvtq_f32_s32(sums[i][v]), vmulq_f32(d[v], e));
                    }
                }
                if (!KIND::SIGNED) {
#pragma GCC unroll 4
                    for (int v = 0; v < 4; v++) {
                        d[v] = twice(w.minima[b][half], v);
                    }
#pragma GCC unroll 4
                    for (int i = 0; i < R; i++) {
                        const float32x4_t e = HALVES == 1 ? pair_of<1>(of[2 * i][b], of[2 * i + 1][b])
                                              : half == 0 ? pair_of<2>(of[2 * i][b], of[2 * i + 1][b])
                                                          : pair_of<3>(of[2 * i][b], of[2 * i + 1][b]);
#pragma GCC unroll 4
                        for (int v = 0; v < 4; v++) {
                            acc[i][v] = plus_product(acc[i][v], d[v], e);
                        }
                    }
                }
            }
        }
#pragma GCC unroll 4
        for (int i = 0; i < R; i++) {
#pragma GCC unroll 2
            for (int v = 0; v < 4; v += 2) {
                vst1q_f32(at(2 * i, v), lefts(acc[i][v], acc[i][v + 1]));
                if (2 * i + 1 < rows) {
                    vst1q_f32(at(2 * i + 1, v), rights(acc[i][v], acc[i][v + 1]));
                }
            }
        }
    }
}

template <typename KIND, typename X> static void multiply_pairs(const paired_strip<KIND::HALVES> & w, int64_t n,
                                                                const X & x, int64_t rows, int64_t first, float * c) {
    enum { MOST = 4 };
    for (int64_t i = 0; i < rows; i += MOST, c += MOST * ARM_COLS) {
        const int64_t some = rows - i;
        if (some > 2) {
            multiply_pairs<KIND, 2>(w, n, x, i, some, first, c);
        } else {
            multiply_pairs<KIND, 1>(w, n, x, i, some, first, c);
        }
    }
}

#endif

}  // namespace KERNELS
}  // namespace vera

#endif
