// Products of quantised weights with activations rounded to 8 bits, for generation. In every block of 32, x ≈ e · r for
// integers |r| ≤ 127 and e = max |x| / 127. The weights w = d · q + m are not rounded further:
//
//   y = Σ_blocks (d · e) Σ q · r + m · (e Σ r)
//
// The inner sums are exact, and the outer one goes block by block. So a result does not depend on the rows, or columns,
// that are computed with it.
//
// W is read once, in strips of 16 rows. A strip is interleaved while its values are bytes: 4 values of each of its rows
// stand side by side in 64 bytes, and are multiplied by the same 4 values of x. It is done for 1,024 values a row at a
// time, which stay in the first-level cache. For few rows of x memory is the bound. The matrices of the shared pair are
// read many times a token, and stand interleaved in memory.
#pragma once

#include "bytes_arm.hpp"
#include "product.hpp"
#include "unpack.hpp"

namespace vera {
namespace KERNELS {

enum {
    BYTE_ROWS   = 4,          // rows of x in a tile
    TIMES       = 2,          // vectors of 8 columns in a strip
    BYTE_COLS   = 8 * TIMES,  // columns of a strip
    BYTE_BLOCKS = 32,         // blocks that are interleaved at a time
    QUICK       = 10240,      // numbers that are rounded sooner than threads have met
};

// Rounds 16 values times `by` to the nearest integers, ties to even, where |x · by| ≤ 127. Returns their sum.
static inline int32_t bytes_of(const float * x, float by, int8_t * to) {
#if LANES >= 8 && defined(__x86_64__)
    const __m256  scale = _mm256_set1_ps(by);
    const __m256i a     = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), scale)),
                  b     = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), scale));
    const __m256i two   = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    _mm_storeu_si128((__m128i *) to, _mm_packs_epi16(_mm256_castsi256_si128(two), _mm256_extracti128_si256(two, 1)));
    const __m256i all = _mm256_add_epi32(a, b);
    __m128i       sum = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    sum               = _mm_add_epi32(sum, _mm_unpackhi_epi64(sum, sum));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 1)));
#elif defined(__aarch64__)
    return round_bytes(x, by, to);
#else
    int32_t sum = 0;
    for (int i = 0; i < 16; i++) {
        const float v = x[i] * by;
        to[i]         = v == v ? (int8_t) nearbyintf(v) : 0;
        sum += to[i];
    }
    return sum;
#endif
}

// Rounds a block of 32 values. Returns e, and the sums of either half's integers.
static inline float round_block(const float * x, int8_t * to, int32_t (&both)[2]) {
#if LANES == 16 && defined(__x86_64__)
    const __m512    a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
    const __m512    size_a = _mm512_abs_ps(a), size_b = _mm512_abs_ps(b);
    const float     most = _mm512_reduce_max_ps(_mm512_max_ps(size_a, size_b)), by = most > 0 ? 127 / most : 0;
    const __mmask16 odd = _mm512_cmp_ps_mask(_mm512_max_ps(size_b, size_a), _mm512_set1_ps(INFINITY), _CMP_NLT_UQ) |
                          _mm512_cmp_ps_mask(size_b, size_b, _CMP_UNORD_Q);
    const __m512i   i   = _mm512_cvtps_epi32(_mm512_mul_ps(a, _mm512_set1_ps(by))),
                    j   = _mm512_cvtps_epi32(_mm512_mul_ps(b, _mm512_set1_ps(by)));
    _mm_storeu_si128((__m128i *) to, _mm512_cvtepi32_epi8(i));
    _mm_storeu_si128((__m128i *) (to + 16), _mm512_cvtepi32_epi8(j));
    const __m256i four =
        _mm256_hadd_epi32(_mm256_add_epi32(_mm512_castsi512_si256(i), _mm512_extracti64x4_epi64(i, 1)),
                          _mm256_add_epi32(_mm512_castsi512_si256(j), _mm512_extracti64x4_epi64(j, 1)));
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
    sum         = _mm_hadd_epi32(sum, sum);
    both[0]     = _mm_cvtsi128_si32(sum);
    both[1]     = _mm_extract_epi32(sum, 1);
    return odd ? NAN : most / 127;
#else
    vf top = vf{}, odd = vf{};
    for (int i = 0; i < 32; i += LANES) {
        const vf v = load(x + i), size = v < 0 ? -v : v;
        top = size > top ? size : top;
        odd += v * 0;  // NaN if x has a NaN or an infinity
    }
    const float most = max_of(top), by = most > 0 ? 127 / most : 0;
    for (int half = 0; half < 2; half++) {
        both[half] = bytes_of(x + 16 * half, by, to + 16 * half);
    }
    return most / 127 + in_pairs(odd);
#endif
}

// Activations as bytes: each row's blocks r, and for each block e, e Σ r, and e Σ r of either half.
struct rounded {
    int64_t  blocks;
    int8_t * r;
    float (*sums)[4];  // e; e Σ r; e Σ r of the first half; of the second
    int32_t * totals;  // −128 Σ r

    static size_t bytes(int64_t rows, int64_t blocks) {
        return rows * blocks * (32 + 4 * sizeof(float) + sizeof(int32_t));
    }

    rounded(void * memory, int64_t rows, int64_t n)
        : blocks(n), r((int8_t *) memory), sums((float (*)[4])((char *) memory + rows * blocks * 32)),
          totals((int32_t *) (sums + rows * blocks)) {}

    const int8_t * bytes_of_row(int64_t row) const { return r + row * blocks * 32; }
    const float (*sums_of_row(int64_t row) const)[4] { return sums + row * blocks; }
    const int32_t * totals_of_row(int64_t row) const { return totals + row * blocks; }

    // The rows from one on.
    rounded from(int64_t row) const {
        rounded x = *this;
        x.r += row * blocks * 32;
        x.sums += row * blocks;
        x.totals += row * blocks;
        return x;
    }

    void round(int64_t row, const float * x) const {
        int8_t * to   = r + row * blocks * 32;
        float (*s)[4] = sums + row * blocks;
        for (int64_t b = 0; b < blocks; b++, x += 32, to += 32, s++) {
            int32_t     both[2];  // sums of the halves
            const float e            = round_block(x, to, both);
            totals[row * blocks + b] = -128 * (both[0] + both[1]);
            (*s)[0]                  = e;
            // with a NaN or an infinity in x, the sums are arbitrary, and e is NaN
            (*s)[1] = e * ((float) both[0] + (float) both[1]);
            (*s)[2] = e * both[0];
            (*s)[3] = e * both[1];
        }
    }
};

// What the values q of a type are. HALVES is 2 if the halves of a block have scales of their own. SUM products of pairs
// can be added up in 16 bits.
template <unsigned TYPE> struct byte_kind {
    enum {
        SIGNED = TYPE == Q8_0,
        HALVES = TYPE == Q6_K ? 2 : 1,
        SUM = SIGNED                                   ? 1
        : TYPE == Q6_K                                 ? 2
        : TYPE == Q5_0 || TYPE == Q5_1 || TYPE == Q5_K ? 4
                                                       : 8,
    };
};

#if LANES >= 8 && defined(__x86_64__)

// A block of an interleaved strip, in registers.
template <typename W> struct interleaved_columns {
    const W & w;
    int64_t   b;

    __m256i q(int group, int j) const {
        __m256i v = _mm256_load_si256((const __m256i *) w.q(b, j, group));
        in_register(v);
        return v;
    }
    __m256 d(int half, int j) const { return w.d(b, half, j); }
    __m256 m(int half, int j) const { return _mm256_load_ps(w.m(b, half, j)); }
};

#endif

// Some blocks of a strip, interleaved.
template <int HALVES> struct interleaved_strip {
    enum { BESIDE = TIMES };
    alignas(64) int8_t bytes[BYTE_BLOCKS][8][TIMES][32];  // 4 values of each of 8 columns
    alignas(64) float scales[BYTE_BLOCKS][HALVES][BYTE_COLS], minima[BYTE_BLOCKS][HALVES][BYTE_COLS];

    const int8_t * q(int64_t b, int j, int group) const { return bytes[b][group][j]; }
    const float *  d(int64_t b, int half) const { return scales[b][half]; }
    const float *  m(int64_t b, int half, int j) const { return minima[b][half] + 8 * j; }
#if LANES >= 8 && defined(__x86_64__)
    __m256 d(int64_t b, int half, int j) const { return _mm256_load_ps(scales[b][half] + 8 * j); }
    interleaved_columns<interleaved_strip> columns(int64_t b, int) const { return { *this, b }; }
#elif !defined(__aarch64__)
    float d(int64_t b, int half, int j, int i) const { return scales[b][half][8 * j + i]; }
#endif
};

// A strip of Q8_0 that stands interleaved in memory: the bytes of each block, then its scales. It takes the same
// rounded_size as its rows do otherwise.
struct stored_strip {
    enum { BESIDE = TIMES, SIZE = BYTE_COLS * 34 };
    const char * strip;

    const int8_t * q(int64_t b, int j, int group) const {
        return (const int8_t *) strip + b * SIZE + (TIMES * group + j) * 32;
    }
    const float * m(int64_t, int, int) const { return nullptr; }
    const half *  d(int64_t b, int) const { return (const half *) halves(b, 0); }
    const char *  halves(int64_t b, int j) const { return strip + b * SIZE + 32 * BYTE_COLS + 16 * j; }
#if LANES >= 8 && defined(__x86_64__)
    __m256 d(int64_t b, int, int j) const { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) halves(b, j))); }
    interleaved_columns<stored_strip> columns(int64_t b, int) const { return { *this, b }; }
#elif !defined(__aarch64__)
    float d(int64_t b, int, int j, int i) const { return half_to_float(halves(b, j) + 2 * i); }
#endif
};

#if LANES >= 8 && defined(__x86_64__)

// Transposes 4 words of 8 rows: r[i] holds those of rows i and i + 4, then word i of all rows.
static inline void interleave_words(__m256i (&r)[4]) {
    const __m256i a = _mm256_unpacklo_epi32(r[0], r[1]), b = _mm256_unpackhi_epi32(r[0], r[1]),
                  c = _mm256_unpacklo_epi32(r[2], r[3]), d = _mm256_unpackhi_epi32(r[2], r[3]);
    r[0] = _mm256_unpacklo_epi64(a, c);
    r[1] = _mm256_unpackhi_epi64(a, c);
    r[2] = _mm256_unpacklo_epi64(b, d);
    r[3] = _mm256_unpackhi_epi64(b, d);
}

static inline __m256i beside(const void * a, const void * b) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *) a)),
                                   _mm_loadu_si128((const __m128i *) b), 1);
}

#endif

// Interleaves 8 words of 4 bytes of 8 rows.
static inline void interleave_words(const bytes (&from)[8][2], int8_t (*to)[TIMES][32]) {
#if LANES >= 8 && defined(__x86_64__)
    for (int half = 0; half < 2; half++) {
        __m256i r[4];
        for (int i = 0; i < 4; i++) {
            r[i] = beside(&from[i][half], &from[i + 4][half]);
        }
        interleave_words(r);
        for (int i = 0; i < 4; i++) {
            memcpy(to[4 * half + i], &r[i], sizeof r[i]);
        }
    }
#elif defined(__aarch64__)
    for (int half = 0; half < 2; half++) {
        for (int i = 0; i < 8; i += 4) {
            int32x4_t r[4];
            for (int j = 0; j < 4; j++) {
                memcpy(&r[j], &from[i + j][half], sizeof r[j]);
            }
            transpose_words(r);
            for (int word = 0; word < 4; word++) {
                memcpy(to[4 * half + word][0] + 4 * i, &r[word], sizeof r[word]);
            }
        }
    }
#else
    for (int word = 0; word < 8; word++) {
        for (int i = 0; i < 8; i++) {
            memcpy(to[word][0] + 4 * i, (const char *) from[i] + 4 * word, 4);
        }
    }
#endif
}

// Interleaves part `part` of the block at offset of each of 8 rows. The 6 bits of Q6_K become unsigned.
template <unsigned TYPE, int HALVES>
static inline void interleave_any(const char * const * rows, int64_t offset, int part, int8_t (*to)[TIMES][32],
                                  float (*d)[BYTE_COLS], float (*m)[BYTE_COLS]) {
    bytes q[8][2];
    for (int i = 0; i < 8; i++) {
        const quants of = quants_of(TYPE, rows[i] + offset, part);
        for (int half = 0; half < HALVES; half++) {
            d[half][i] = of.d[half];
            m[half][i] = TYPE == Q6_K ? -32 * of.d[half] : of.m[half];
        }
        q[i][0] = TYPE == Q6_K ? of.q[0] + 32 : of.q[0];
        q[i][1] = TYPE == Q6_K ? of.q[1] + 32 : of.q[1];
    }
    interleave_words(q, to);
}

#if LANES >= 8 && defined(__x86_64__)

// A block of 8 rows, interleaved in registers: for types with a scale and perhaps a minimum, then values of 4 or 8
// bits. Values of 4 bits stay two in a byte until q is called.
template <unsigned TYPE> struct plain_columns {
    enum { FIRST = TYPE == Q4_1 ? 4 : 2, HALVES = TYPE == Q8_0 ? 2 : 1 };
    __m256i words[HALVES][4];
    __m256  scales, minima;

    plain_columns(const char * const * rows, int64_t offset) {
#pragma GCC unroll 2
        for (int half = 0; half < HALVES; half++) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                words[half][i] = beside(rows[i] + offset + FIRST + 16 * half, rows[i + 4] + offset + FIRST + 16 * half);
            }
            interleave_words(words[half]);
        }
        const auto halves = [&](int i) {
            int32_t two;
            memcpy(&two, rows[i] + offset, 4);
            return two;
        };
        const __m256i two = _mm256_set_epi32(halves(7), halves(6), halves(5), halves(4), halves(3), halves(2),
                                             halves(1), halves(0)),
                      low = _mm256_set1_epi32(0xffff);
        const __m256i all =
            _mm256_permute4x64_epi64(_mm256_packus_epi32(_mm256_and_si256(two, low), _mm256_srli_epi32(two, 16)), 0xd8);
        scales = _mm256_cvtph_ps(_mm256_castsi256_si128(all));
        minima = TYPE == Q4_1 ? _mm256_cvtph_ps(_mm256_extracti128_si256(all, 1))
                              : _mm256_mul_ps(scales, _mm256_set1_ps(-8));
    }

    __m256i q(int group, int) const {
        const __m256i four = words[group / 4 % HALVES][group % 4];
        return TYPE == Q8_0 ? four
                            : _mm256_and_si256(group < 4 ? four : _mm256_srli_epi16(four, 4), _mm256_set1_epi8(15));
    }
    __m256 d(int, int) const { return scales; }
    __m256 m(int, int) const { return minima; }

    void keep(int8_t (*to)[TIMES][32], float * d, float * m) const {
#pragma GCC unroll 8
        for (int group = 0; group < 8; group++) {
            _mm256_store_si256((__m256i *) to[group], q(group, 0));
        }
        _mm256_store_ps(d, scales);
        _mm256_store_ps(m, minima);
    }
};

#endif

static constexpr bool is_plain(unsigned type) { return type == Q4_0 || type == Q4_1 || type == Q8_0; }

// Prefetches bytes start … end of next.
static inline void prefetch(const char * next, int64_t start, int64_t end) {
    start &= -64;
    prefetch(next + start, end - start);
}

// Interleaves blocks first … first + n of BYTE_COLS rows. Prefetches as many bytes of `next`, which the processor would
// not predict.
template <unsigned TYPE>
__attribute__((flatten)) static void interleave_strip(const char * const * rows, size_t size, int64_t first, int64_t n,
                                                      const char *                                 next,
                                                      interleaved_strip<byte_kind<TYPE>::HALVES> & to) {
    enum {
        HALVES = byte_kind<TYPE>::HALVES,
        PARTS = TYPE == Q4_K || TYPE == Q5_K || TYPE == Q6_K ? 8 : 1,
    };
    for (int64_t b = 0; b < n; b++) {
        const int64_t offset = (first + b) / PARTS * size;
        prefetch(next, (first + b) * size * BYTE_COLS / PARTS, (first + b + 1) * size * BYTE_COLS / PARTS);
        for (int j = 0; j < BYTE_COLS; j += 8) {
            int8_t (*const words)[TIMES][32] = (int8_t (*)[TIMES][32]) to.bytes[b][0][j / 8];
#if LANES >= 8 && defined(__x86_64__)
            if (is_plain(TYPE)) {
                plain_columns<TYPE>(rows + j, offset).keep(words, to.scales[b][0] + j, to.minima[b][0] + j);
                continue;
            }
#endif
            interleave_any<TYPE, HALVES>(rows + j, offset, (int) ((first + b) % PARTS), words,
                                         (float (*)[BYTE_COLS])(to.scales[b][0] + j),
                                         (float (*)[BYTE_COLS])(to.minima[b][0] + j));
        }
    }
}

#if LANES >= 8 && defined(__x86_64__)

// A strip that is interleaved in registers: for few rows of x, which need it only once.
template <unsigned TYPE> struct register_strip {
    enum { BESIDE = 1, SIZE = TYPE == Q4_0 ? 18 : TYPE == Q4_1 ? 20 : 34 };
    const char * const * rows;
    const char *         next;  // prefetched

    plain_columns<TYPE> columns(int64_t b, int j) const {
        prefetch(next, (b * TIMES + j) * SIZE * 8, (b * TIMES + j + 1) * SIZE * 8);
        return { rows + 8 * j, b * SIZE };
    }
};

// c[i][j] += Σ over n blocks of a strip for R rows of x, whose blocks begin at `first`; at 0, c begins with 0. A row of
// c has BYTE_COLS elements.
template <typename KIND, int R, typename W>
__attribute__((flatten)) static void multiply_tile(const W & w, int64_t n, const rounded & x, int64_t row,
                                                   int64_t first, float * c) {
    enum { GROUPS = 8 / KIND::HALVES };
    const __m256i  ones = _mm256_set1_epi16(1);
    const int8_t * r[R];
    const float (*of[R])[4];
    __m256 acc[R][TIMES];
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) {
        r[i]  = x.bytes_of_row(row + i) + first * 32;
        of[i] = x.sums_of_row(row + i) + first;
#pragma GCC unroll 2
        for (int j = 0; j < TIMES; j++) {
            acc[i][j] = first > 0 ? _mm256_loadu_ps(c + i * BYTE_COLS + 8 * j) : _mm256_setzero_ps();
        }
    }
    for (int64_t b = 0; b < n; b++) {
#pragma GCC unroll 2
        for (int j0 = 0; j0 < TIMES; j0 += W::BESIDE) {
            const auto columns = w.columns(b, j0);
#pragma GCC unroll 2
            for (int half = 0; half < KIND::HALVES; half++) {
                __m256i sums[R][W::BESIDE], some[R][W::BESIDE];
#pragma GCC unroll 8
                for (int g = 0; g < GROUPS; g++) {
                    const int group = half * GROUPS + g;
                    __m256i   q[W::BESIDE], size[W::BESIDE];
#pragma GCC unroll 2
                    for (int j = 0; j < W::BESIDE; j++) {
                        q[j]    = columns.q(group, j);
                        size[j] = KIND::SIGNED ? _mm256_abs_epi8(q[j]) : q[j];
                    }
#pragma GCC unroll 4
                    for (int i = 0; i < R; i++) {
                        int32_t four;
                        memcpy(&four, r[i] + b * 32 + group * 4, 4);
                        const __m256i by = _mm256_set1_epi32(four);
#pragma GCC unroll 2
                        for (int j = 0; j < W::BESIDE; j++) {
                            const __m256i two =
                                _mm256_maddubs_epi16(size[j], KIND::SIGNED ? _mm256_sign_epi8(by, q[j]) : by);
                            some[i][j] = g % KIND::SUM == 0 ? two : _mm256_add_epi16(some[i][j], two);
                            if (g % KIND::SUM == KIND::SUM - 1) {
                                const __m256i whole = _mm256_madd_epi16(some[i][j], ones);
                                sums[i][j]          = g < KIND::SUM ? whole : _mm256_add_epi32(sums[i][j], whole);
                                in_register(sums[i][j]);  // GCC would keep all eight, and add them up at the end
                            }
                        }
                    }
                }
#pragma GCC unroll 2
                for (int j = 0; j < W::BESIDE; j++) {
                    const __m256 d = columns.d(half, j);
#pragma GCC unroll 4
                    for (int i = 0; i < R; i++) {
                        __m256 & sum = acc[i][j0 + j];
                        sum          = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[i][j]),
                                                       _mm256_mul_ps(d, _mm256_set1_ps(of[i][b][0])), sum);
                        if (!KIND::SIGNED) {
                            sum = _mm256_fmadd_ps(columns.m(half, j),
                                                  _mm256_set1_ps(of[i][b][KIND::HALVES == 2 ? 2 + half : 1]), sum);
                        }
                    }
                }
            }
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) {
#pragma GCC unroll 2
        for (int j = 0; j < TIMES; j++) {
            _mm256_storeu_ps(c + i * BYTE_COLS + 8 * j, acc[i][j]);
        }
    }
}

#elif defined(__aarch64__)

static_assert((int) ARM_COLS == (int) BYTE_COLS && (int) ARM_BLOCKS == (int) BYTE_BLOCKS, "strips are alike");

template <typename KIND, int R, typename W>
static void multiply_tile(const W & w, int64_t n, const rounded & x, int64_t row, int64_t first, float * c) {
    multiply_dots_of_bytes<KIND, R>(w, n, x, row, first, c);
}

#else

template <typename KIND, int R, typename W>
static void multiply_tile(const W & w, int64_t n, const rounded & x, int64_t row, int64_t first, float * c) {
    enum { GROUPS = 8 / KIND::HALVES };
    for (int i = 0; i < R; i++, c += BYTE_COLS) {
        const int8_t * r     = x.bytes_of_row(row + i) + first * 32;
        const float (*of)[4] = x.sums_of_row(row + i) + first;
        if (first == 0) {
            memset(c, 0, BYTE_COLS * sizeof(float));
        }
        for (int64_t b = 0; b < n; b++) {
            for (int half = 0; half < KIND::HALVES; half++) {
                for (int j = 0; j < BYTE_COLS; j++) {
                    int32_t sum = 0;
                    for (int k = 4 * half * GROUPS; k < 4 * (half + 1) * GROUPS; k++) {
                        sum += w.q(b, j / 8, k / 4)[j % 8 * 4 + k % 4] * r[b * 32 + k];
                    }
                    c[j] += sum * (w.d(b, half, j / 8, j % 8) * of[b][0]);
                    if (!KIND::SIGNED) {
                        c[j] += w.m(b, half, j / 8)[j % 8] * of[b][KIND::HALVES == 2 ? 2 + half : 1];
                    }
                }
            }
        }
    }
}

#endif

#if HAS_VNNI

// The same for a strip in memory, by instructions that multiply 4 unsigned bytes by 4 signed ones and add them up. The
// sums are the same integers. A signed w is w + 128 there, and 128 Σ r too much.
template <typename KIND, int R, typename W>
__attribute__((flatten)) static void multiply_strip(const W & w, int64_t n, const rounded & x, int64_t row,
                                                    int64_t first, float * c) {
    enum { GROUPS = 8 / KIND::HALVES, CHAINS = R < 4 ? 4 / R : 1 };  // sums that do not wait for each other
    const __m512i  sign = _mm512_set1_epi8(-128);
    const int8_t * r[R];
    const float (*of[R])[4];
    const int32_t * totals[R];
    __m512          acc[R];
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
        r[i]      = x.bytes_of_row(row + i) + first * 32;
        of[i]     = x.sums_of_row(row + i) + first;
        totals[i] = x.totals_of_row(row + i) + first;
        acc[i]    = first > 0 ? _mm512_loadu_ps(c + i * BYTE_COLS) : _mm512_setzero_ps();
    }
    for (int64_t b = 0; b < n; b++) {
#pragma GCC unroll 2
        for (int half = 0; half < KIND::HALVES; half++) {
            __m512i sums[R][CHAINS];
#pragma GCC unroll 8
            for (int i = 0; i < R; i++) {
#pragma GCC unroll 4
                for (int chain = 0; chain < CHAINS; chain++) {
                    sums[i][chain] =
                        KIND::SIGNED && chain == 0 ? _mm512_set1_epi32(totals[i][b]) : _mm512_setzero_si512();
                }
            }
#pragma GCC unroll 8
            for (int g = 0; g < GROUPS; g++) {
                const int group = half * GROUPS + g;
                __m512i   q     = _mm512_loadu_si512(w.q(b, 0, group));
                if (KIND::SIGNED) {
                    q = _mm512_xor_si512(q, sign);
                }
#pragma GCC unroll 8
                for (int i = 0; i < R; i++) {
                    int32_t four;
                    memcpy(&four, r[i] + b * 32 + group * 4, 4);
                    sums[i][g % CHAINS] = _mm512_dpbusd_epi32(sums[i][g % CHAINS], q, _mm512_set1_epi32(four));
                }
            }
            const __m512 d = (__m512) load(w.d(b, half));
#pragma GCC unroll 8
            for (int i = 0; i < R; i++) {
#pragma GCC unroll 4
                for (int chain = 1; chain < CHAINS; chain++) {
                    sums[i][0] = _mm512_add_epi32(sums[i][0], sums[i][chain]);
                }
                acc[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[i][0]), _mm512_mul_ps(d, _mm512_set1_ps(of[i][b][0])),
                                         acc[i]);
                if (!KIND::SIGNED) {
                    acc[i] = _mm512_fmadd_ps(_mm512_loadu_ps(w.m(b, half, 0)),
                                             _mm512_set1_ps(of[i][b][KIND::HALVES == 2 ? 2 + half : 1]), acc[i]);
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
        _mm512_storeu_ps(c + i * BYTE_COLS, acc[i]);
    }
}

#endif

template <typename KIND, typename W> static void multiply_rows(const W & w, int64_t n, const rounded & x, int64_t rows,
                                                               int64_t first, float * c) {
    int64_t i = 0;
#if HAS_VNNI
    if constexpr ((int) W::BESIDE == (int) TIMES) {
        for (; i + 8 <= rows; i += 8) {
            multiply_strip<KIND, 8>(w, n, x, i, first, c + i * BYTE_COLS);
        }
        for (; i + 4 <= rows; i += 4) {
            multiply_strip<KIND, 4>(w, n, x, i, first, c + i * BYTE_COLS);
        }
        for (; i + 2 <= rows; i += 2) {
            multiply_strip<KIND, 2>(w, n, x, i, first, c + i * BYTE_COLS);
        }
        if (i < rows) {
            multiply_strip<KIND, 1>(w, n, x, i, first, c + i * BYTE_COLS);
        }
        return;
    }
#endif
    enum { R = KIND::SUM == 1 || KIND::SUM == 8 ? BYTE_ROWS : BYTE_ROWS / 2 };  // as many as fit into registers
    for (; i + R <= rows; i += R) {
        multiply_tile<KIND, R>(w, n, x, i, first, c + i * BYTE_COLS);
    }
    for (; i + 2 <= rows; i += 2) {
        multiply_tile<KIND, 2>(w, n, x, i, first, c + i * BYTE_COLS);
    }
    if (i < rows) {
        multiply_tile<KIND, 1>(w, n, x, i, first, c + i * BYTE_COLS);
    }
}

// multiply_rows with a strip in registers, if the type allows it.
template <unsigned TYPE> static bool multiply_in_registers(const char * const * rows, const char * next, int64_t n,
                                                           const rounded & x, int64_t count, float * c) {
#if LANES >= 8 && defined(__x86_64__)
    if constexpr (is_plain(TYPE)) {
        multiply_rows<byte_kind<TYPE>>(register_strip<TYPE>{ rows, next }, n, x, count, 0, c);
        return true;
    }
#elif defined(__aarch64__)
    if (count == 1) {
        multiply_along<TYPE, byte_kind<TYPE>, 1>(rows, next, n, x, 0, c);
    } else {
        multiply_along<TYPE, byte_kind<TYPE>, 2>(rows, next, n, x, 0, c);
    }
    return true;
#endif
    return false;
}

// A quantised matrix that meets rows first … first + m of x. `interleaved` tells whether it stands so.
struct byte_matrix {
    const ggml_tensor * w;
    bool                interleaved;
    int64_t             first, m;

    int64_t strips() const { return (w->ne[1] + BYTE_COLS - 1) / BYTE_COLS; }
    // The columns of strip s.
    int64_t columns(int64_t s) const {
        const int64_t left = w->ne[1] - s * BYTE_COLS;
        return left < BYTE_COLS ? left : BYTE_COLS;
    }
};

// c [m][BYTE_COLS] = the product with strip s. The same thread will most likely take strip `next` after it.
template <unsigned TYPE> static void multiply_strip_of(const byte_matrix & of, int64_t s, int64_t next,
                                                       const rounded & x, void * memory, float * c) {
    typedef byte_kind<TYPE>                 kind;
    typedef interleaved_strip<kind::HALVES> strip;
    const int64_t                           n0 = s * BYTE_COLS, cols = of.columns(s);
    const char *                            rows[BYTE_COLS];
    for (int64_t j = 0; j < BYTE_COLS; j++) {  // rows past the end repeat the last one
        rows[j] = row(of.w, n0 + (j < cols ? j : cols - 1));
    }
    const char * ahead = row(of.w, next * BYTE_COLS);
    if (of.m <= 2 && multiply_in_registers<TYPE>(rows, ahead, x.blocks, x, of.m, c)) {
        return;
    }
#if HAS_I8MM
    if (of.m > 2) {
        auto & pairs = *(paired_strip<kind::HALVES> *) memory;
        for (int64_t b = 0; b < x.blocks; b += BYTE_BLOCKS) {
            const int64_t n = x.blocks - b < BYTE_BLOCKS ? x.blocks - b : BYTE_BLOCKS;
            pairs.template take<TYPE>(rows, ggml_type_size(of.w->type), b, n, ahead);
            multiply_pairs<kind>(pairs, n, x, of.m, b, c);
        }
        return;
    }
#endif
    strip & blocks_of_w = *(strip *) memory;
    for (int64_t b = 0; b < x.blocks; b += BYTE_BLOCKS) {
        const int64_t n = x.blocks - b < BYTE_BLOCKS ? x.blocks - b : BYTE_BLOCKS;
        interleave_strip<TYPE>(rows, ggml_type_size(of.w->type), b, n, ahead, blocks_of_w);
        multiply_rows<kind>(blocks_of_w, n, x, of.m, b, c);
    }
}

static void multiply_strip_of(const byte_matrix & of, int64_t s, int64_t next, const rounded & x, void * memory,
                              float * c) {
#if HAS_I8MM
    if (of.interleaved && of.m > 2) {
        auto & pairs = *(paired_strip<1> *) memory;
        for (int64_t b = 0; b < x.blocks; b += BYTE_BLOCKS) {
            const int64_t n = x.blocks - b < BYTE_BLOCKS ? x.blocks - b : BYTE_BLOCKS;
            pairs.take(stored_strip{ row(of.w, s * BYTE_COLS) }, b, n);
            multiply_pairs<byte_kind<Q8_0>>(pairs, n, x, of.m, b, c);
        }
        return;
    }
#endif
    if (of.interleaved) {
        multiply_rows<byte_kind<Q8_0>>(stored_strip{ row(of.w, s * BYTE_COLS) }, x.blocks, x, of.m, 0, c);
        return;
    }
    switch (of.w->type) {
    case Q4_0: multiply_strip_of<Q4_0>(of, s, next, x, memory, c); break;
    case Q4_1: multiply_strip_of<Q4_1>(of, s, next, x, memory, c); break;
    case Q5_0: multiply_strip_of<Q5_0>(of, s, next, x, memory, c); break;
    case Q5_1: multiply_strip_of<Q5_1>(of, s, next, x, memory, c); break;
    case Q8_0: multiply_strip_of<Q8_0>(of, s, next, x, memory, c); break;
    case Q4_K: multiply_strip_of<Q4_K>(of, s, next, x, memory, c); break;
    case Q5_K: multiply_strip_of<Q5_K>(of, s, next, x, memory, c); break;
    case Q6_K: multiply_strip_of<Q6_K>(of, s, next, x, memory, c); break;
    }
}

// Computes the products of some matrices with their rows of x, `rows` rows of k numbers that row_of_x(i, buf) gives.
// Calls use(matrix, column, columns, c) for every part c [m][BYTE_COLS] of them; before, soon(matrix, column).
template <typename R, typename S, typename F>
static void multiply_bytes(const thread & t, const byte_matrix * all, int count, int64_t rows, int64_t k, R row_of_x,
                           S soon, F use) {
    typedef interleaved_strip<2> largest;
    int64_t                      strips = 0, most = 0;
    for (int i = 0; i < count; i++) {
        strips += all[i].strips();
        most = all[i].m > most ? all[i].m : most;
    }
    // every thread rounds x for itself, where that takes less time than waiting
    const bool   alone  = rows <= 2 || rows * k <= QUICK;
    const size_t needed = rounded::bytes(rows, k / 32), own = alone ? (needed + 63) / 64 * 64 : 0;
    if (!alone) {
        if (t.ith == 0) {
            t.shared(needed);
        }
        t.barrier();
    }
    char *        memory = (char *) t.scratch(own + sizeof(largest) + (most * BYTE_COLS + k) * sizeof(float));
    float *       c      = (float *) (memory + own + sizeof(largest));
    const rounded x(alone ? memory : t.shared(0), rows, k / 32);
    for (int64_t i = alone ? 0 : t.ith; i < rows; i += alone ? 1 : t.nth) {
        x.round(i, row_of_x(i, c + most * BYTE_COLS));
    }
    if (!alone) {
        t.barrier();
    }
    const auto run = [&](int64_t s, int64_t end) {  // strips, counted through all matrices
        for (int i = 0; s < end; i++) {
            const byte_matrix & of = all[i];
            const int64_t       n  = of.strips() < end ? of.strips() : end;
            for (const rounded part = x.from(of.first); s < n; s++) {
                const int64_t n0 = s * BYTE_COLS;
                soon(i, n0);
                multiply_strip_of(of, s, s + 1, part, memory + own, c);
                use(i, n0, of.columns(s), c);
            }
            s -= of.strips();
            end -= of.strips();
        }
    };
    // Half of the strips are every thread's own, and follow each other in memory; the rest goes to who has time.
    const int64_t mine = strips / (2 * t.nth), rest = t.nth * mine, fair = (strips - rest) / (4 * t.nth),
                  width = fair < 1   ? 1
                          : fair > 4 ? 4
                                     : fair;
    run(t.ith * mine, (t.ith + 1) * mine);
    for (int64_t s; (s = rest + t.take() * width) < strips;) {
        run(s, s + width < strips ? s + width : strips);
    }
}

// Calls use(row, rows, column, columns, c, ldc) for every part of the product, as multiply does.
template <typename F> static void multiply_bytes(const thread & t, const product & p, bool interleaved, F use) {
    const byte_matrix w = { p.b.t, interleaved, 0, p.m };
    multiply_bytes(
        t, &w, 1, p.m, p.k, [&](int64_t i, float * buf) { return p.row_of_a(i, buf); }, [](int, int64_t) {},
        [&](int, int64_t n0, int64_t cols, float * c) { use(0, p.m, n0, cols, c, BYTE_COLS); });
}

}  // namespace KERNELS
}  // namespace vera
