// Products of operands that are rounded to integers, for training. In every block of values along k, a row of A is e ·
// r and a column of B is d · q, for integers |r|, |q| ≤ LIMIT, e = max |a| / LIMIT and d = max |b| / LIMIT:
//
//   C = Σ_blocks (e · d) Σ r · q
//
// The inner sums are exact in 32 bits; the outer one goes block by block. Where an instruction multiplies bytes and
// adds up four products, integers are bytes. Elsewhere they have 16 bits, of which 13 are used, so that no sum
// overflows: AVX2 multiplies them as fast as bytes, whose signs it has to turn, and they are nearly exact.
//
// A few large values would leave the others of their block a few integers. So where operands are gradients and
// integers are bytes, every TURNED values of either operand are multiplied by a Hadamard matrix first, which spreads a
// large value over all of them and leaves the products' sums as they are (QuaRot, arXiv 2404.00456).
//
// Where the sum goes over tokens, a token's values may all be large in A and small or 0 in B. So A's are multiplied by
// a power of two, and B's divided by it, that makes both about as large (SmoothQuant, arXiv 2211.10438).
//
// B is packed as in product.hpp: it is unpacked to floats one block of k at a time, and rounded while these are in the
// cache.
#pragma once

#include "bytes_arm.hpp"
#include "product.hpp"

#include <cmath>

namespace vera {
namespace KERNELS {

#if HAS_VNNI || defined(__aarch64__)
enum { IN_WORD = 4, LIMIT = 127, LONGEST = 256, TURNED = 64 };
#else
enum { IN_WORD = 2, LIMIT = 4095, LONGEST = 128, TURNED = 0 };
#endif

enum {
    BITS = 32 / IN_WORD,
    UNIT = TURNED ? TURNED : 32,  // blocks are multiples of it, and quantised ones too
    // VNNI multiplies unsigned bytes by signed ones: q is q + SHIFT in B's words, and sums are SHIFT Σ r too much.
    SHIFT = HAS_VNNI ? 128 : 0,
};
static_assert((int64_t) LIMIT * LIMIT * LONGEST < (1LL << 31), "sums of a block fit");

// The values in a block where k are summed: LONGEST or less, so that the blocks have few behind the end.
static inline int64_t span_of(int64_t k) {
    enum { END = 24 };  // values that take as long as a block's end
    int64_t span = UNIT, least = INT64_MAX;
    for (int64_t n = (k + LONGEST - 1) / LONGEST; n <= 2 * k / LONGEST + 1; n++) {
        const int64_t each = ((k + n - 1) / n + UNIT - 1) / UNIT * UNIT;
        if (n * (each + END) < least) {
            least = n * (each + END);
            span  = each;
        }
    }
    return span;
}

// Whether their products are faster than those of floats.
#if defined(__aarch64__)
enum { FAST = HAS_DOT && !HAS_BF16 };
#else
enum { FAST = LANES >= 8 && !HAS_AMX };
#endif

static inline ggml_vera_integers integers(int64_t k) { return { LIMIT, (int32_t) span_of(k), TURNED, FAST }; }

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
#if LANES >= 8 && defined(__x86_64__)
    typedef int32_t eight __attribute__((vector_size(32)));
    typedef int32_t four __attribute__((vector_size(16)));
#if LANES == 16
    const eight half =
        op((eight) _mm512_castsi512_si256((__m512i) v), (eight) _mm512_extracti64x4_epi64((__m512i) v, 1));
#else
    const eight half = v;
#endif
    const four a = op((four) _mm256_castsi256_si128((__m256i) half),
                      (four) _mm256_extracti128_si256((__m256i) half, 1)),
               b = op(a, (four) _mm_unpackhi_epi64((__m128i) a, (__m128i) a));
    return op(b[0], b[1]);
#else
    int32_t x[LANES];
    memcpy(x, &v, sizeof v);
    for (int n = LANES / 2; n > 0; n /= 2) {
        for (int i = 0; i < n; i++) {
            x[i] = op(x[i], x[i + n]);
        }
    }
    return x[0];
#endif
}

static inline int32_t largest_of(vi v) {
    return joined(v, [](auto a, auto b) { return a > b ? a : b; });
}

// Rounds `span` values. Returns e; total is −SHIFT Σ r.
template <typename T> static inline float round_values(const T * x, int64_t span, int32_t * to, int32_t & total) {
    enum { STEP = 2 * LANES };
    vi most = vi{};
    for (int64_t i = 0; i < span; i += STEP) {
        most = larger(most, larger(magnitude(load(x + i)), magnitude(load(x + i + LANES))));
    }
    vf by, back;
    scales(largest_of(most) - vi{}, by, back);
    vi sums = vi{};
    for (int64_t i = 0; i < span; i += STEP) {
        sums += store_integers(rounded_bits(load(x + i), by, 0), rounded_bits(load(x + i + LANES), by, 0),
                               (char *) to + i * 4 / IN_WORD);
    }
    total = SHIFT ? -SHIFT * joined(sums, [](auto a, auto b) { return a + b; }) : 0;
    return back[0];
}

// Lanes whose numbers differ in the bit H change places.
template <int H> static inline vf exchanged(vf v) {
#if LANES == 16 && defined(__x86_64__)
    switch (H) {
    case 1: return (vf) _mm512_permute_ps((__m512) v, 0xb1);
    case 2: return (vf) _mm512_permute_ps((__m512) v, 0x4e);
    case 4: return (vf) _mm512_shuffle_f32x4((__m512) v, (__m512) v, 0xb1);
    default: return (vf) _mm512_shuffle_f32x4((__m512) v, (__m512) v, 0x4e);
    }
#elif defined(__aarch64__)
    return H == 1 ? (vf) vrev64q_f32((float32x4_t) v) : (vf) vextq_f32((float32x4_t) v, (float32x4_t) v, 2);
#else
    vf other;
    for (int i = 0; i < LANES; i++) {
        other[i] = v[i ^ H];
    }
    return other;
#endif
}

// Sums and differences of neighbours at distance H within v.
template <int H> static inline vf butterfly(vf v) {
    vf sign;
    for (int i = 0; i < LANES; i++) {
        sign[i] = i & H ? -1 : 1;
    }
    return v * sign + exchanged<H>(v);
}

// Multiplies N numbers of each lane by a Hadamard matrix.
template <int N> static inline __attribute__((always_inline)) void hadamard(vf * v) {
#pragma GCC                                                        unroll 4
    for (int h = 1; h < N; h *= 2) {
#pragma GCC unroll 16
        for (int i = 0; i < N; i++) {
            if (!(i & h)) {
                const vf a = v[i], b = v[i + h];
                v[i]     = a + b;
                v[i + h] = a - b;
            }
        }
    }
}

// Multiplies the rows of x [TURNED][·] that lie `stride` apart by a Hadamard matrix, LANES columns of them.
static inline void turn_rows(float * x, int64_t stride) {
    enum { SOME = 8 };
    for (int apart = 1; apart < TURNED; apart *= SOME) {
        for (int first = 0; first < TURNED / SOME; first++) {
            float * from = x + (first / apart * apart * SOME + first % apart) * stride;
            vf      v[SOME];
#pragma GCC unroll 8
            for (int i = 0; i < SOME; i++) {
                v[i] = load(from + i * apart * stride);
            }
            hadamard<SOME>(v);
#pragma GCC unroll 8
            for (int i = 0; i < SOME; i++) {
                store(from + i * apart * stride, v[i]);
            }
        }
    }
}

// Multiplies TURNED values by a Hadamard matrix, in the order of turn_rows.
template <typename T> static inline void turn(const T * x, float * to) {
    enum { COUNT = TURNED / LANES > 0 ? TURNED / LANES : 1 };
    vf v[COUNT];
#pragma GCC unroll 16
    for (int i = 0; i < COUNT; i++) {
        v[i] = butterfly<2>(butterfly<1>(load(x + i * LANES)));
#if LANES == 16
        v[i] = butterfly<8>(butterfly<4>(v[i]));
#endif
    }
    hadamard<COUNT>(v);
#pragma GCC unroll 16
    for (int i = 0; i < COUNT; i++) {
        store(to + i * LANES, v[i]);
    }
}

// Rounds a block of `span` values of a row of A, of which n are there. Returns e; total is −SHIFT Σ r.
template <typename T> static inline float round_integers(const T * x, int64_t n, int64_t span, bool turned,
                                                         int32_t * to, int32_t & total) {
    alignas(64) T all[LONGEST];
    if (n < span) {
        memset(all, 0, sizeof all);
        memcpy(all, x, n * sizeof(T));
        x = all;
    }
    if (TURNED && turned) {
        alignas(64) float values[LONGEST];
        for (int64_t i = 0; i < span; i += UNIT) {
            turn(x + i, values + i);
        }
        return round_values(values, span, to, total) / UNIT;
    }
    return round_values(x, span, to, total);
}

// Rounds a block of a panel, [span][PANEL], to words, and gives d of each column. It may be changed.
static inline void round_panel(float * from, int64_t span, bool turned, int32_t * to, float * d) {
    for (int j = 0; j < PANEL; j += LANES) {
        if (TURNED && turned) {
            for (int64_t k = 0; k < span; k += UNIT) {
                turn_rows(from + k * PANEL + j, PANEL);
            }
        }
        const float * x    = from + j;
        vi            most = vi{};
#pragma GCC unroll 4
        for (int64_t k = 0; k < span; k++) {
            most = larger(most, magnitude(load(x + k * PANEL)));
        }
        vf by, back;
        scales(most, by, back);
        store(d + j, back);
        for (int64_t w = 0; w < span / IN_WORD; w++, x += IN_WORD * PANEL) {
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

// The largest magnitude of n activations at p; NaN is above all.
static inline float largest(const ggml_tensor * t, const char * p, int64_t n) {
    vi         most = vi{};
    const auto see  = [&](const auto * x) {
        by_vectors(n, [&](int64_t i, auto some) { most = larger(most, magnitude(load(x + i, some))); });
    };
    if (t->type == BF16) {
        see((const uint16_t *) p);
    } else {
        see((const float *) p);
    }
    const int32_t bits = largest_of(most);
    float         size;
    memcpy(&size, &bits, sizeof size);
    return size;
}

// What a token's values are multiplied by in A and in B, whose largest magnitudes are a and b: powers of two and their
// inverses; zeros where the token adds nothing.
static inline void balance(float a, float b, float & of_a, float & of_b) {
    int x, y;
    of_a = of_b = 1;
    if (a == 0 || b == 0) {
        of_a = of_b = a + b < INFINITY ? 0 : 1;
    } else if (a < INFINITY && b < INFINITY) {
        frexpf(a, &x);
        frexpf(b, &y);
        const int most = 100, half = (y - x) / 2, n = half > most ? most : half < -most ? -most : half;
        of_a = ldexpf(1, n);
        of_b = ldexpf(1, -n);
    }
}

// Rows of A as integers: for each block, its words, e and −SHIFT Σ r.
struct integer_rows {
    int64_t   blocks, length;  // of a row; words of a block
    int32_t * words;           // [rows][blocks][length]
    float *   e;               // [rows][blocks]
    int32_t * totals;          // [rows][blocks]
    float *   of_b;            // [k]: what B is multiplied by; NULL for ones

    // From a row on, and from a block of it.
    integer_rows from(int64_t row, int64_t block) const {
        const int64_t first = row * blocks + block;
        return { blocks, length, words + first * length, e + first, totals + first, of_b };
    }
};

// Some blocks of a strip as integers: panels of words, and d of each block's columns.
struct integer_strip {
    int32_t * words;  // [width / PANEL][blocks][length][PANEL]
    float *   d;      // [width / PANEL][blocks][PANEL]
};

// Writes what stands in `from`, if that is to be added, and one block's part, for R rows of A and one panel of B.
template <int R> __attribute__((noinline)) static void integer_tile(const integer_rows & a, const int32_t * b,
                                                                    const float * d, const place & from,
                                                                    const place & to) {
    vi acc[R][VECTORS];
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; j++) {
            acc[i][j] = SHIFT ? a.totals[i * a.blocks] - vi{} : vi{};
        }
    }
    const int32_t *words = a.words, *end = words + a.length;
    const int64_t  stride = a.blocks * a.length, next = a.blocks;
    for (; words < end; words++, b += PANEL) {
        vi q[VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; j++) {
            memcpy(&q[j], b + j * LANES, sizeof q[j]);
        }
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            const vi x = words[i * stride] - vi{};
#pragma GCC unroll 4
            for (int j = 0; j < VECTORS; j++) {
                acc[i][j] = plus_products(acc[i][j], x, q[j]);
            }
            loads_end();
        }
    }
    const float * e      = a.e;
    const auto    finish = [&](auto before) {
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            const vf scale = splat(e[i * next]);
#pragma GCC unroll 4
            for (int j = 0; j < VECTORS; j++) {
                const vf sum = __builtin_convertvector(acc[i][j], vf);
                store(to.c + i * to.ldc + j * LANES, fused(sum, scale * load(d + j * LANES), before(i, j)));
            }
        }
    };
    if (from.add) {
        finish([&](int i, int j) { return load(from.c + i * from.ldc + j * LANES); });
    } else {
        finish([](int, int) { return vf{}; });
    }
}

// integer_tile for any number of rows.
static void integer_tiles(int64_t rows, const integer_rows & all, const int32_t * b, const float * d,
                          const place & from, const place & to) {
    for (int64_t i = 0; i < rows; i += ROWS) {
        const integer_rows a      = all.from(i, 0);
        const place        before = from.offset(i, 0), after = to.offset(i, 0);
        switch (rows - i) {
        case 1: integer_tile<1>(a, b, d, before, after); break;
        case 2: integer_tile<2>(a, b, d, before, after); break;
        case 3: integer_tile<3>(a, b, d, before, after); break;
        case 4: integer_tile<4>(a, b, d, before, after); break;
        case 5: integer_tile<5>(a, b, d, before, after); break;
        default: integer_tile<ROWS>(a, b, d, before, after);
        }
    }
}

// Rounds A, in memory that the threads share.
static integer_rows round_rows(const thread & t, const product & p, int64_t span, bool turned) {
    const int64_t blocks = (p.k + span - 1) / span, length = span / IN_WORD, all = p.m * blocks;
    const bool    tokens = !p.a.along && !p.b.along;
    if (t.ith == 0) {
        t.shared((all * (length + 2) + 2 * p.k) * 4);
    }
    t.barrier();
    integer_rows to  = { blocks, length, (int32_t *) t.shared(0), nullptr, nullptr, nullptr };
    to.e             = (float *) (to.words + all * length);
    to.totals        = (int32_t *) (to.e + all);
    float * const by = (float *) (to.totals + all);
    if (tokens) {
        to.of_b = by + p.k;
        for (int64_t i; (i = t.take() * LANES) < p.k;) {
            for (int64_t j = i; j < i + LANES && j < p.k; j++) {
                balance(largest(p.a.t, row(p.a.t, j), p.m), largest(p.b.t, row(p.b.t, j), p.n), by[j], to.of_b[j]);
            }
        }
        t.barrier();
    }
    float *    buf   = (float *) t.scratch(p.k * (p.a.along ? 1 : LANES) * sizeof(float));
    const auto round = [&](int64_t row, auto x) {
        for (int64_t b = 0; b < blocks; b++) {
            const integer_rows at   = to.from(row, b);
            const int64_t      left = p.k - b * span;
            *at.e = round_integers(x + b * span, left < span ? left : span, span, turned, at.words, *at.totals);
        }
    };
    for (int64_t i; (i = t.take() * LANES) < p.m;) {
        const int64_t n = p.m - i < LANES ? p.m - i : LANES;
        if (!p.a.along) {
            transpose_columns<false>(p.a.t, i, n, p.k, (int32_t *) buf, p.k);
        }
        for (int64_t j = 0; j < n; j++) {
            if (!p.a.along) {
                float * x = buf + j * p.k;
                if (tokens) {
                    factors::multiply(by, x, nullptr, x, p.k);
                }
                round(i + j, x);
            } else if (p.a.t->type == BF16 && !p.by.t && !p.rows) {
                round(i + j, (const uint16_t *) row(p.a.t, i + j));
            } else {
                round(i + j, p.row_of_a(i + j, buf));
            }
        }
    }
    t.barrier();
    return to;
}

// Packs n blocks of a strip, from block `first` on, whose values are multiplied by by [k] where that is given. floats
// [span · width] is room for a block.
static void pack_integers(const product & p, const float * by, int64_t span, bool turned, int64_t first, int64_t n,
                          int64_t n0, int64_t cols, float * floats, const integer_strip & to) {
    for (int64_t b = 0; b < n; b++) {
        const int64_t start = (first + b) * span, left = p.k - start;
        pack<false>(p, { start, left < span ? left : span, span }, n0, cols, (int32_t *) floats);
        for (int64_t j = 0; j < cols; j += PANEL) {
            const int64_t i = j / PANEL * n + b;
            for (int64_t k = 0; by && k < span && k < left; k++) {
                for (float *x = floats + (j / PANEL * span + k) * PANEL, *end = x + PANEL; x < end; x += LANES) {
                    store(x, load(x) * splat(by[start + k]));
                }
            }
            round_panel(floats + j * span, span, turned, to.words + i * span / IN_WORD * PANEL, to.d + i * PANEL);
        }
    }
}

// multiply with integers. where(row, column, columns) is the place where a part of C may be written as it is, or one of
// NULL where use is to be called with it. turned tells whether operands meet a Hadamard matrix.
template <typename F, typename G>
static void multiply_integers(const thread & t, const product & p, bool turned, F use, G where) {
    enum { PACKED = 1 << 16 };  // words that are packed together
    const int64_t      span = span_of(p.k);
    const integer_rows a    = round_rows(t, p, span, turned);
    const int64_t fit = PACKED / p.width / a.length, room = fit > 0 ? fit : 1, most = a.blocks < room ? a.blocks : room,
                  kept  = p.m < KEPT ? p.m : KEPT;
    carver        sizes = { 0 };
    sizes.take<float>(p.width * (kept + span + most));
    sizes.take<int32_t>(p.width * most * a.length);
    carver              memory = { (uintptr_t) t.scratch(sizes.next) };
    float *             c = memory.take<float>(p.width * (kept + span + most)), *floats = c + p.width * kept;
    const integer_strip strip = { memory.take<int32_t>(p.width * most * a.length), floats + p.width * span };
    sum_up(
        t, p, a.blocks, room, c,
        [&](int64_t b, int64_t n, int64_t n0, int64_t cols) {
            pack_integers(p, a.of_b, span, turned, b, n, n0, cols, floats, strip);
        },
        [&](int64_t b, int64_t n, int64_t r, int64_t rows, int64_t n0, int64_t cols, float * sums) {
            const place result = where(r, n0, cols);
            for (int64_t k = b; k < b + n; k++) {
                const place from = { sums, p.width, k > 0 }, to = result.c && k + 1 == a.blocks ? result : from;
                for (int64_t j = 0; j < cols; j += PANEL) {
                    const int64_t i = j / PANEL * n + k - b;
                    integer_tiles(rows, a.from(r, k), strip.words + i * a.length * PANEL, strip.d + i * PANEL,
                                  from.offset(0, j), to.offset(0, j));
                }
            }
        },
        [&](int64_t r, int64_t rows, int64_t n0, int64_t cols, float * sums, int64_t ldc) {
            if (!where(r, n0, cols).c) {
                use(r, rows, n0, cols, sums, ldc);
            }
        });
}

// A product of a step of training, in a ggml_vera_way.
template <typename F> static void multiply_trained(const thread & t, const product & p, bool half, int way, bool turned,
                                                   F use) {
    if (way == GGML_VERA_INTEGERS) {
        multiply_integers(t, p, turned, use, [](int64_t, int64_t, int64_t) { return place{}; });
    } else {
        multiply(t, p, half, use);
    }
}

}  // namespace KERNELS
}  // namespace vera
