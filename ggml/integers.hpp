// Products of operands that are rounded to integers, for training. In every block of BLOCK values along k, a row of A
// is e · r and a column of B is d · q, for integers |r|, |q| ≤ LIMIT, e = max |a| / LIMIT and d = max |b| / LIMIT:
//
//   C = Σ_blocks (e · d) Σ r · q
//
// The inner sums are exact in 32 bits; the outer one goes block by block. Where an instruction multiplies bytes and
// adds up four products, integers are bytes. Elsewhere they have 16 bits, of which 13 are used, so that no sum
// overflows: AVX2 multiplies them as fast as bytes, whose signs it has to turn, and they are nearly exact.
//
// B is packed as in product.hpp: it is unpacked to floats one block of k at a time, and rounded while these are in the
// cache.
#pragma once

#include "bytes_arm.hpp"
#include "product.hpp"

namespace vera {
namespace KERNELS {

#if HAS_VNNI || defined(__aarch64__)
enum { IN_WORD = 4, LIMIT = 127, BLOCK = 64 };
#else
enum { IN_WORD = 2, LIMIT = 4095, BLOCK = 128 };
#endif

enum {
    BITS        = 32 / IN_WORD,
    BLOCK_WORDS = BLOCK / IN_WORD,
    // VNNI multiplies unsigned bytes by signed ones: q is q + SHIFT in B's words, and sums are SHIFT Σ r too much.
    SHIFT = HAS_VNNI ? 128 : 0,
    // blocks of k that stay in the first-level cache
    DEPTH = BLOCK_WORDS * PANEL * 4 < 16384 ? 16384 / (BLOCK_WORDS * PANEL * 4) : 1,
};
static_assert((int64_t) LIMIT * LIMIT * BLOCK < (1LL << 31), "sums of a block fit");

// Magnitudes below this count as 0, since LIMIT divided by them would overflow.
static constexpr float SMALLEST = 1e-34f;

// The nearest integer to v · by, ties to even, plus `plus`, in the lower BITS bits.
static inline vi rounded_bits(vf v, vf by, int plus) {
    const float magic = 12582912.0f;  // 1.5 · 2²³: the integer is in the last bits of the sum
#if LANES >= 8 || defined(__aarch64__) || defined(__FP_FAST_FMAF)
    return (vi) fused(v, by, splat(magic + plus));
#else
    vi r;
    for (int i = 0; i < LANES; i++) {
        r[i] = (int32_t) nearbyint((double) v[i] * by[i]) + plus;
    }
    (void) magic;
    return r;
#endif
}

// Magnitudes as integers, whose order is that of the magnitudes, and NaN is above all.
static inline vi magnitude(vf v) { return (vi) v & 0x7fffffff; }

static inline vi larger(vi a, vi b) { return a > b ? a : b; }

// The factors by which numbers are rounded, and those that undo it: LIMIT / most and most / LIMIT. Where most is
// infinite or NaN the second is NaN.
static inline void scales(vi most, vf & by, vf & back) {
    const vf size = (vf) most, zero = vf{};
    const vi none = size < splat(SMALLEST), odd = most >= 0x7f800000;
    by   = (none | odd) ? zero : splat(LIMIT) / size;
    back = odd ? splat(NAN) : none ? zero : size / splat(LIMIT);
}

// Stores the integers of 2 · LANES values, given as rounded_bits, one after the other. Returns their sums.
static inline vi store_integers(vi a, vi b, char * to) {
    a = a << (32 - BITS) >> (32 - BITS);
    b = b << (32 - BITS) >> (32 - BITS);
#if HAS_VNNI
    _mm_storeu_si128((__m128i *) to, _mm512_cvtepi32_epi8((__m512i) a));
    _mm_storeu_si128((__m128i *) (to + 16), _mm512_cvtepi32_epi8((__m512i) b));
#elif LANES == 16 && defined(__x86_64__)
    _mm256_storeu_si256((__m256i *) to, _mm512_cvtepi32_epi16((__m512i) a));
    _mm256_storeu_si256((__m256i *) (to + 32), _mm512_cvtepi32_epi16((__m512i) b));
#elif LANES == 8 && defined(__x86_64__)
    const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32((__m256i) a, (__m256i) b), 0xd8);
    _mm256_storeu_si256((__m256i *) to, both);
#elif defined(__aarch64__)
    vst1_s8((int8_t *) to, vmovn_s16(vcombine_s16(vmovn_s32((int32x4_t) a), vmovn_s32((int32x4_t) b))));
#else
    int16_t r[2 * LANES];
    for (int i = 0; i < LANES; i++) {
        r[i]         = (int16_t) a[i];
        r[i + LANES] = (int16_t) b[i];
    }
    memcpy(to, r, sizeof r);
#endif
    return a + b;
}

// The lanes of v joined by op.
template <typename F> static inline int32_t joined(vi v, F op) {
    int32_t x[LANES];
    memcpy(x, &v, sizeof v);
    for (int n = LANES / 2; n > 0; n /= 2) {
        for (int i = 0; i < n; i++) {
            x[i] = op(x[i], x[i + n]);
        }
    }
    return x[0];
}

// Rounds a block of up to BLOCK values of a row of A to words, which lie `stride` apart. Returns e; total is −SHIFT Σ
// r.
static inline float round_integers(const float * x, int64_t n, int32_t * to, int64_t stride, int32_t & total) {
    alignas(64) float   all[BLOCK];
    alignas(64) int32_t words[BLOCK_WORDS];
    if (n < BLOCK) {
        memset(all, 0, sizeof all);
        memcpy(all, x, n * sizeof(float));
        x = all;
    }
    vi most = vi{};
#pragma GCC unroll 16
    for (int i = 0; i < BLOCK; i += LANES) {
        most = larger(most, magnitude(load(x + i)));
    }
    const int32_t largest = joined(most, [](int32_t a, int32_t b) { return a > b ? a : b; });
    vf            by, back;
    scales(largest - vi{}, by, back);
    vi sums = vi{};
#pragma GCC unroll 16
    for (int i = 0; i < BLOCK; i += 2 * LANES) {
        sums += store_integers(rounded_bits(load(x + i), by, 0), rounded_bits(load(x + i + LANES), by, 0),
                               (char *) words + i * 4 / IN_WORD);
    }
    total = SHIFT ? -SHIFT * joined(sums, [](int32_t a, int32_t b) { return a + b; }) : 0;
    for (int i = 0; i < BLOCK_WORDS; i++) {
        to[i * stride] = words[i];
    }
    return back[0];
}

// Rounds a block of a panel, [BLOCK][PANEL], to words, and gives d of each column.
static inline void round_panel(const float * from, int32_t * to, float * d) {
    for (int j = 0; j < PANEL; j += LANES) {
        const float * x    = from + j;
        vi            most = vi{};
#pragma GCC unroll 4
        for (int k = 0; k < BLOCK; k++) {
            most = larger(most, magnitude(load(x + k * PANEL)));
        }
        vf by, back;
        scales(most, by, back);
        store(d + j, back);
        for (int w = 0; w < BLOCK_WORDS; w++, x += IN_WORD * PANEL) {
            vi words = rounded_bits(load(x), by, SHIFT) & (int32_t) ((1u << BITS) - 1);
#pragma GCC unroll 4
            for (int i = 1; i < IN_WORD; i++) {
                vi bits = rounded_bits(load(x + i * PANEL), by, SHIFT) << i * BITS;
                if (i + 1 < IN_WORD) {
                    bits &= (int32_t) (((1u << BITS) - 1) << i * BITS);
                }
                words |= bits;
            }
            memcpy(to + w * PANEL + j, &words, sizeof words);
        }
    }
}

// sum + the products of the integers of x and those of q, for each word of q.
static inline vi plus_products(vi sum, vi x, vi q) {
#if HAS_VNNI
    return (vi) _mm512_dpbusd_epi32((__m512i) sum, (__m512i) q, (__m512i) x);
#elif LANES == 16 && defined(__x86_64__)
    return sum + (vi) _mm512_madd_epi16((__m512i) x, (__m512i) q);
#elif LANES == 8 && defined(__x86_64__)
    return sum + (vi) _mm256_madd_epi16((__m256i) x, (__m256i) q);
#elif defined(__aarch64__)
    return (vi) dot((int32x4_t) sum, (int8x16_t) x, (int8x16_t) q);
#else
    return sum + (x << 16 >> 16) * (q << 16 >> 16) + (x >> 16) * (q >> 16);
#endif
}

// Rows of A as integers, in groups of ROWS: for each block, a word of each row after the other, and e and −SHIFT Σ r of
// each row.
struct integer_rows {
    int64_t   blocks;
    int32_t * words;
    float *   e;
    int32_t * totals;

    static int64_t groups(int64_t rows) { return (rows + ROWS - 1) / ROWS; }

    // From a row on, which begins a group, and from a block of it.
    integer_rows from(int64_t row, int64_t block) const {
        const int64_t first = (row / ROWS * blocks + block) * ROWS;
        return { blocks, words + first * BLOCK_WORDS, e + first, totals + first };
    }
};

// c[i][j] (+)= one block's part, for R rows of A and one panel of B.
template <int R> __attribute__((noinline)) static void integer_tile(const integer_rows & a, const int32_t * b,
                                                                    const float * d, const place & to) {
    vi acc[R][VECTORS];
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; j++) {
            acc[i][j] = SHIFT ? a.totals[i] - vi{} : vi{};
        }
    }
    const int32_t * words = a.words;
    for (int p = 0; p < BLOCK_WORDS; p++, words += ROWS, b += PANEL) {
        vi q[VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; j++) {
            memcpy(&q[j], b + j * LANES, sizeof q[j]);
        }
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            const vi x = words[i] - vi{};
#pragma GCC unroll 4
            for (int j = 0; j < VECTORS; j++) {
                acc[i][j] = plus_products(acc[i][j], x, q[j]);
            }
            loads_end();
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
        const vf e = splat(a.e[i]);
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; j++) {
            float *  c   = to.c + i * to.ldc + j * LANES;
            const vf sum = __builtin_convertvector(acc[i][j], vf);
            store(c, fused(sum, e * load(d + j * LANES), to.add ? load(c) : vf{}));
        }
    }
}

// Some blocks of a strip as integers: panels of words, and d of each block's columns.
struct integer_strip {
    int32_t * words;  // [width / PANEL][blocks][BLOCK_WORDS][PANEL]
    float *   d;      // [width / PANEL][blocks][PANEL]
};

// The product of `rows` rows and n blocks of a panel.
static void integer_tiles(int64_t rows, int64_t n, const integer_rows & all, const int32_t * b, const float * d,
                          const place & to) {
    for (int64_t i = 0; i < rows; i += ROWS) {
        for (int64_t k = 0; k < n; k++) {
            const integer_rows a     = all.from(i, k);
            const int32_t *    words = b + k * BLOCK_WORDS * PANEL;
            const float *      scale = d + k * PANEL;
            place              part  = to.offset(i, 0);
            part.add                 = to.add || k > 0;
            switch (rows - i) {
            case 1: integer_tile<1>(a, words, scale, part); break;
            case 2: integer_tile<2>(a, words, scale, part); break;
            case 3: integer_tile<3>(a, words, scale, part); break;
            case 4: integer_tile<4>(a, words, scale, part); break;
            case 5: integer_tile<5>(a, words, scale, part); break;
            default: integer_tile<ROWS>(a, words, scale, part);
            }
        }
    }
}

// Rounds A, in memory that the threads share.
static integer_rows round_rows(const thread & t, const product & p) {
    const int64_t blocks = (p.k + BLOCK - 1) / BLOCK, groups = integer_rows::groups(p.m), all = groups * ROWS * blocks;
    if (t.ith == 0) {
        t.shared(all * (BLOCK_WORDS + 2) * 4);
    }
    t.barrier();
    integer_rows to  = { blocks, (int32_t *) t.shared(0), nullptr, nullptr };
    to.e             = (float *) (to.words + all * BLOCK_WORDS);
    to.totals        = (int32_t *) (to.e + all);
    float *    buf   = (float *) t.scratch(p.k * (p.a.along ? 1 : LANES) * sizeof(float));
    const auto round = [&](int64_t row, const float * x) {
        for (int64_t b = 0; b < blocks; b++) {
            const integer_rows at   = to.from(row, b);
            const int64_t      left = p.k - b * BLOCK, i = row % ROWS;
            at.e[i] = round_integers(x + b * BLOCK, left < BLOCK ? left : BLOCK, at.words + i, ROWS, at.totals[i]);
        }
    };
    enum { SOME = ROWS * LANES };  // rows in a piece of work
    for (int64_t first; (first = t.take() * SOME) < p.m;) {
        const int64_t end = first + SOME < p.m ? first + SOME : p.m;
        for (int64_t i = first; i < end; i += LANES) {
            const int64_t n = end - i < LANES ? end - i : LANES;
            if (!p.a.along) {
                transpose_columns<false>(p.a.t, i, n, p.k, (int32_t *) buf, p.k);
            }
            for (int64_t j = 0; j < n; j++) {
                round(i + j, p.a.along ? p.row_of_a(i + j, buf) : buf + j * p.k);
            }
        }
    }
    t.barrier();
    return to;
}

// Packs n blocks of a strip, from block `first` on. floats [BLOCK · width] is room for a block.
static void pack_integers(const product & p, int64_t first, int64_t n, int64_t n0, int64_t cols, float * floats,
                          const integer_strip & to) {
    for (int64_t b = 0; b < n; b++) {
        const int64_t start = (first + b) * BLOCK, left = p.k - start;
        pack<false>(p, { start, left < BLOCK ? left : BLOCK, BLOCK }, n0, cols, (int32_t *) floats);
        for (int64_t j = 0; j < cols; j += PANEL) {
            const int64_t i = j / PANEL * n + b;
            round_panel(floats + j * BLOCK, to.words + i * BLOCK_WORDS * PANEL, to.d + i * PANEL);
        }
    }
}

// multiply with integers. Pieces begin with a group of rows.
template <typename F> static void multiply_integers(const thread & t, product p, F use) {
    enum { PACKED = 1 << 16 };  // words that are packed together
    p.group                 = 4 * ROWS;
    const integer_rows a    = round_rows(t, p);
    const int64_t      room = PACKED / p.width / BLOCK_WORDS, most = a.blocks < room ? a.blocks : room,
                       kept  = p.m < KEPT ? p.m : KEPT;
    carver             sizes = { 0 };
    sizes.take<float>(p.width * (kept + BLOCK + most));
    sizes.take<int32_t>(p.width * most * BLOCK_WORDS);
    carver              memory = { (uintptr_t) t.scratch(sizes.next) };
    float *             c = memory.take<float>(p.width * (kept + BLOCK + most)), *floats = c + p.width * kept;
    const integer_strip strip = { memory.take<int32_t>(p.width * most * BLOCK_WORDS), floats + p.width * BLOCK };
    sum_up(
        t, p, a.blocks, room, c,
        [&](int64_t b, int64_t n, int64_t n0, int64_t cols) { pack_integers(p, b, n, n0, cols, floats, strip); },
        [&](int64_t b, int64_t n, int64_t r, int64_t rows, int64_t cols, float * to) {
            for (int64_t k = 0; k < n; k += DEPTH) {
                const int64_t depth = n - k < DEPTH ? n - k : DEPTH;
                for (int64_t j = 0; j < cols; j += PANEL) {
                    const int64_t at = j / PANEL * n + k;
                    integer_tiles(rows, depth, a.from(r, b + k), strip.words + at * BLOCK_WORDS * PANEL,
                                  strip.d + at * PANEL, { to + j, p.width, b + k > 0 });
                }
            }
        },
        use);
}

}  // namespace KERNELS
}  // namespace vera
