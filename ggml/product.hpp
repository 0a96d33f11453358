// Matrix products C[m, n] = Σ_k A[m, k] · s[k] · B[n, k], and what is done with a piece of C while it is in the cache.
//
// Both operands are seen as 32-bit words along k: one float, or two bfloat16 numbers. A is read row by row as it lies
// in memory. B is packed stretch by stretch of a strip of 64 to 256 columns, in panels of PANEL columns, word k of all
// of a panel's columns side by side. One strip is unpacked by one thread, stays in its second-level cache, and meets
// all rows of A. For K words, M rows and 6 × PANEL accumulators, each pass over k loads PANEL + 6 words for 6 · PANEL
// products. A float copy of B never exists outside of a strip.
//
// Every element of C is summed by one thread in the order of k, a block at a time, so a result depends on neither the
// number of threads nor the width of strips.

enum {
    VECTORS = REGISTERS / 8,    // of a panel
    PANEL   = VECTORS * LANES,  // columns
    ROWS    = 6,                // of A that a tile takes
    GROUP = HAS_AMX ? 32 : 24,  // of A that pieces are cut at
    STRIP  = 64,                // columns at least
    WIDEST = 256,               // columns at most, those of the longest blocks
    CHUNK  = 96,                // rows of A that meet a block of k at a time
    SHORT  = 256,               // words of k in a block: of strips of any width and for tiles
    // of narrow strips: what memory gives in advance is worth more than the first-level cache
    LONG = 1024,
    KEPT = 16 * CHUNK,  // rows of C that a thread sums up at a time
};

// Where a piece of C goes, and whether it is added to what is there.
struct place {
    float * c;
    int64_t ldc;
    bool    add;

    place at(int64_t i, int64_t j) const { return { c + i * ldc + j, ldc, add }; }
};

// c[i][j] (+)= Σ_k a[i][k] b[k][j] for R rows of A and one panel of B, k counted in words.
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

// The same for any number of rows.
template <bool HALF> static void tiles(int64_t rows, int64_t k, const int32_t * a, int64_t stride, const int32_t * b,
                                       const place & to) {
    int64_t i = 0;
    for (; i + ROWS <= rows; i += ROWS) {
        tile<HALF, ROWS>(k, a + i * stride, stride, b, to.at(i, 0));
    }
    a += i * stride;
    const place last = to.at(i, 0);
    switch (rows - i) {
    case 1: tile<HALF, 1>(k, a, stride, b, last); break;
    case 2: tile<HALF, 2>(k, a, stride, b, last); break;
    case 3: tile<HALF, 3>(k, a, stride, b, last); break;
    case 4: tile<HALF, 4>(k, a, stride, b, last); break;
    case 5: tile<HALF, 5>(k, a, stride, b, last); break;
    }
}

#include "amx.hpp"
#include "unpack.hpp"

// to[j][i] = from[i][j] for LANES × LANES words, of T.
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
    for (int i = 0; i < 4; i++) {  // halves of two rows, whose others are four rows and four columns away
        const float *at = (const float *) from + i * ldf, *below = at + 4 * ldf;
        r[i]     = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at)), _mm_loadu_ps(below), 1);
        r[i + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at + 4)), _mm_loadu_ps(below + 4), 1);
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
#else
    for (int j = 0; j < LANES; j++) {
        for (int i = 0; i < LANES; i++) {
            to[j * ldt + i] = from[i * ldf + j];
        }
    }
#endif
}

// n numbers as words along k: floats, or pairs of bfloat16 with a zero behind an odd last one.
template <bool HALF> static inline void words(const float * from, int32_t * to, int64_t n) {
    if (!HALF) {
        memcpy(to, from, n * 4);
        return;
    }
    copy(from, (uint16_t *) to, n);
    if (n % 2) {
        ((uint16_t *) to)[n] = 0;
    }
}

template <bool HALF> static inline int64_t word_count(int64_t n) { return HALF ? (n + 1) / 2 : n; }

// The words that packed operands have for n numbers: zeros fill up what the kernel takes at once.
template <bool HALF> static inline int64_t packed_count(int64_t n) {
    enum { STEP = HALF && HAS_AMX ? 16 : 1 };
    return (word_count<HALF>(n) + STEP - 1) / STEP * STEP;
}

#if HAS_BF16
// 16 words, each a pair of bfloat16 numbers.
static inline __m512i pairs(__m512i both) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, both);
}

static inline __m512i pairs(vf even, vf odd) {
    return pairs((__m512i) _mm512_cvtne2ps_pbh((__m512) odd, (__m512) even));
}
#endif

// A word for each column from two rows of k: a pair of bfloat16.
static inline void interleave(vf even, vf odd, int32_t * to) {
#if HAS_BF16
    _mm512_storeu_si512(to, pairs(even, odd));
#else
    for (int j = 0; j < LANES; j++) {
        to[j] = (int32_t) ((uint32_t) to_bf16(even[j]) | (uint32_t) to_bf16(odd[j]) << 16);
    }
#endif
}

static inline void interleave(const float * even, const float * odd, int32_t * to, int64_t n) {
    int64_t j = 0;
#if HAS_BF16
    for (; j + 16 <= n; j += 16) {
        interleave(load(even + j), load(odd + j), to + j);
    }
#endif
    for (; j < n; j++) {
        to[j] = (int32_t) ((uint32_t) to_bf16(even[j]) | (uint32_t) to_bf16(odd[j]) << 16);
    }
}

static inline void interleave(const uint16_t * even, const uint16_t * odd, int32_t * to, int64_t n) {
    int64_t j = 0;
#if HAS_BF16
    for (; j + 16 <= n; j += 16) {
        const __m512i low = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *) (even + j)));
        _mm512_storeu_si512(to + j, pairs(_mm512_inserti64x4(low, _mm256_loadu_si256((const __m256i *) (odd + j)), 1)));
    }
#endif
    for (; j < n; j++) {
        to[j] = (int32_t) ((uint32_t) even[j] | (uint32_t) odd[j] << 16);
    }
}

// One operand as it lies in memory: a tensor's rows. `along` tells whether a row runs along k; else the rows are k, and
// a row runs along the other dimension.
struct source {
    const ggml_tensor * t;
    bool                along;
};

struct product {
    int64_t       m, n, k;
    source        a, b;
    const float * s;      // [k], which A is multiplied with as it is prepared, or NULL for ones
    int64_t       width;  // columns of a strip
    int64_t       group;  // rows that pieces are cut at multiples of
    // that share B, for multiply_bytes: A is taken once for each, its rows for the first of them first
    int64_t         layers = 1;
    int64_t         step   = 0;        // numbers from one layer's s to the next's
    const int32_t * rows   = nullptr;  // A's rows of the tensor, or NULL for all

    const char * line(int64_t i) const { return row(a.t, rows ? rows[i] : i); }
};

static inline void scale(float * values, const float * s, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        values[i] *= s[i];
    }
}

// A stretch of k: numbers first … first + n, as `words` words of the panels.
struct stretch {
    int64_t first, n, words;
};

// 32 of the `cols` rows of a tensor from row n0. Those beyond the last are the last once more, and nobody uses what
// they give.
static inline void find_rows(const ggml_tensor * t, int64_t n0, int64_t j, int64_t cols, const char ** rows) {
    for (int64_t i = 0; i < 32; i++) {
        rows[i] = row(t, n0 + (j + i < cols ? j + i : cols - 1));
    }
}

// Packs a stretch of `cols` rows of a quantised tensor from row n0, which run along k, as columns of panels: column j's
// words to panels[j / PANEL][word][j % PANEL].
template <bool HALF> static void pack_quants(const product & p, const stretch & part, int64_t n0, int64_t cols,
                                             int32_t * panels) {
    const ggml_tensor * t     = p.b.t;
    const int64_t       block = ggml_blck_size(t->type);
    const size_t        size  = ggml_type_size(t->type);
    turned_quants       turned;
    enum { AHEAD = 512 };
    for (int64_t j = 0; j < p.width; j += 32) {
        const char * rows[32];
        find_rows(t, n0, j, cols, rows);
        for (int64_t k = 0; k < part.n; k += 32) {
            for (int i = 0; i < 32 && (part.first + k) % block == 0; i++) {
                prefetch(rows[i] + (part.first + k) / block * size + AHEAD, size);
            }
            turn_rows(t->type, rows, (part.first + k) / block * size, (int) (k % block / 32), turned);
            for (int i = 0; i < 32; i += LANES) {
                int32_t * to =
                    panels + (j + i) / PANEL * PANEL * part.words + word_count<HALF>(k) * PANEL + (j + i) % PANEL;
                vf even;
                turned.each(i, [&](int at, vf v) {
                    if (!HALF) {
                        store((float *) to + at * PANEL, v);
                    } else if (at % 2 == 0) {
                        even = v;
                    } else {
                        interleave(even, v, to + at / 2 * PANEL);
                    }
                });
            }
        }
    }
}

// The same of a tensor of any type.
template <bool HALF> static void pack_along(const product & p, const stretch & part, int64_t n0, int64_t cols,
                                            int32_t * panels) {
    enum { BLOCK = 256 };
    const ggml_tensor * t      = p.b.t;
    const size_t        size   = ggml_type_size(t->type);
    const int64_t       block  = ggml_blck_size(t->type);
    const bool          direct = HALF ? t->type == BF16 : t->type == F32;
    alignas(64) float   buf[BLOCK];
    alignas(64) int32_t in[LANES * BLOCK];
    if (has_quants(t->type)) {
        pack_quants<HALF>(p, part, n0, cols, panels);
        return;
    }
    // a block of rows lies as it is turned
    const bool turned = direct && t->nb[1] % 4 == 0 && (uintptr_t) t->data % 4 == 0;
    for (int64_t j = 0; j < p.width; j += LANES) {
        int32_t * to = panels + j / PANEL * PANEL * part.words + j % PANEL;
        for (int64_t k = 0; k < part.n; k += BLOCK) {
            const int64_t n = part.n - k < BLOCK ? part.n - k : BLOCK, w = word_count<HALF>(n),
                          padded = (w + LANES - 1) / LANES * LANES;
            int32_t *     at     = to + word_count<HALF>(k) * PANEL;
            if (turned && j + LANES <= cols && n % (HALF ? 2 : 1) == 0 && w % LANES == 0) {
                const int32_t * from = (const int32_t *) (row(t, n0 + j) + (part.first + k) * size);
                for (int64_t i = 0; i < w; i += LANES) {
                    transpose(from + i, t->nb[1] / 4, at + i * PANEL, PANEL);
                }
                continue;
            }
            for (int i = 0; i < LANES; i++) {
                int32_t * line = in + i * BLOCK;
                if (j + i >= cols) {
                    memset(line, 0, padded * 4);
                    continue;
                }
                const char * from = row(t, n0 + j + i) + (part.first + k) / block * size;
                if (direct) {
                    line[w - 1] = 0;
                    memcpy(line, from, n * size);
                } else {
                    float * values = HALF ? buf : (float *) line;
                    unpack(t, from, values, n);
                    if (HALF) {
                        words<HALF>(values, line, n);
                    }
                }
            }
            int64_t i = 0;
            for (; i + LANES <= w; i += LANES) {
                transpose(in + i, BLOCK, at + i * PANEL, PANEL);
            }
            if (i < w) {
                int32_t last[LANES * LANES];
                transpose(in + i, BLOCK, last, LANES);
                for (int64_t r = 0; i + r < w; r++) {
                    memcpy(at + (i + r) * PANEL, last + r * LANES, LANES * 4);
                }
            }
        }
    }
}

// Packs a stretch of columns n0 … n0 + cols of a tensor whose rows are k.
template <bool HALF> static void pack_across(const product & p, const stretch & part, int64_t n0, int64_t cols,
                                             int32_t * panels) {
    enum { MOST = 256, AHEAD = 24 };
    const ggml_tensor * t  = p.b.t;
    const int64_t       kw = part.words, whole = (cols + PANEL - 1) / PANEL * PANEL;
    const size_t        offset = n0 / ggml_blck_size(t->type) * ggml_type_size(t->type),
                        bytes  = cols / ggml_blck_size(t->type) * ggml_type_size(t->type);
    const bool          direct = HALF && t->type == BF16 && cols == whole;
    alignas(64) float   buf[2][MOST];
    memset(buf, 0, sizeof buf);
    for (int64_t w = 0; w < word_count<HALF>(part.n); w++) {
        const int64_t k  = part.first + (HALF ? 2 * w : w);
        int32_t *     to = panels + w * PANEL;
        for (int i = 0; i <= (int) HALF; i++) {
            prefetch(row(t, k + AHEAD + i) + offset, bytes);
        }
        if (direct && k + 1 < p.k) {
            const uint16_t *even = (const uint16_t *) (row(t, k) + offset),
                           *odd  = (const uint16_t *) (row(t, k + 1) + offset);
            for (int64_t j = 0; j < whole; j += PANEL) {
                interleave(even + j, odd + j, to + j * kw, PANEL);
            }
            continue;
        }
        for (int i = 0; i <= (int) HALF; i++) {
            if (k + i == p.k) {
                memset(buf[i], 0, cols * 4);
                continue;
            }
            unpack(t, row(t, k + i) + offset, buf[i], cols);
        }
        for (int64_t j = 0; j < whole; j += PANEL) {
            if (HALF) {
                interleave(buf[0] + j, buf[1] + j, to + j * kw, PANEL);
            } else {
                memcpy(to + j * kw, buf[0] + j, PANEL * 4);
            }
        }
    }
}

// Operand A as words: where it lies if its rows run along k in the product's type, else turned or converted in memory
// that the threads share.
struct lines {
    const int32_t * at;
    int64_t         stride;
};

// Turns columns m0 … m0 + n, LANES at most, of a tensor whose rows are k into rows of words.
template <bool HALF> static void turn(const ggml_tensor * t, int64_t m0, int64_t n, int64_t k, int32_t * to,
                                      int64_t stride) {
    alignas(64) float   buf[2][LANES];
    alignas(64) int32_t block[LANES * LANES], turned[LANES * LANES];
    const int64_t       kw   = word_count<HALF>(k);
    const size_t        size = t->type == BF16 ? 2 : 4;
    memset(block, 0, sizeof block);
    for (int64_t w = 0; w < kw; w += LANES) {
        const int64_t some = kw - w < LANES ? kw - w : LANES;
        for (int64_t i = 0; i < some; i++) {
            const int64_t at   = HALF ? 2 * (w + i) : w + i;
            const char *  r0   = row(t, at) + m0 * size;
            const bool    pair = at + 1 < k;
            if (HALF && t->type == BF16) {
                const uint16_t zeros[LANES] = {};
                interleave((const uint16_t *) r0, pair ? (const uint16_t *) (r0 + t->nb[1]) : zeros, block + i * LANES,
                           n);
                continue;
            }
            const float * even = floats(t, r0, buf[0], n);
            if (HALF) {
                const float zeros[LANES] = {};
                interleave(even, pair ? floats(t, r0 + t->nb[1], buf[1], n) : zeros, block + i * LANES, n);
            } else {
                memcpy(block + i * LANES, even, n * 4);
            }
        }
        if (n == LANES && some == LANES) {
            transpose(block, LANES, to + w, stride);
            continue;
        }
        transpose(block, LANES, turned, LANES);
        for (int64_t i = 0; i < n; i++) {
            memcpy(to + i * stride + w, turned + i * LANES, some * 4);
        }
    }
}

template <bool HALF> static lines prepare(const thread & t, const product & p) {
    const ggml_tensor * a  = p.a.t;
    const int64_t       kw = packed_count<HALF>(p.k), used = word_count<HALF>(p.k);
    if (p.a.along && !p.s && !p.rows && kw == used && a->nb[1] % 4 == 0 &&
        (HALF ? a->type == BF16 && p.k % 2 == 0 && (uintptr_t) a->data % 4 == 0 : a->type == F32)) {
        return { (const int32_t *) a->data, (int64_t) a->nb[1] / 4 };
    }
    if (t.ith == 0) {
        t.shared(p.m * kw * 4);
    }
    t.barrier();
    int32_t * to = (int32_t *) t.shared(0);
    if (p.a.along) {
        float * buf = (float *) t.scratch(p.k * sizeof(float));
        for (int64_t b; (b = t.take() * LANES) < p.m;) {
            for (int64_t i = b; i < b + LANES && i < p.m; i++) {
                const float * from = floats(a, p.line(i), buf, p.k);
                if (p.s) {
                    for (int64_t k = 0; k < p.k; k++) {
                        buf[k] = from[k] * p.s[k];
                    }
                    from = buf;
                }
                words<HALF>(from, to + i * kw, p.k);
                memset(to + i * kw + used, 0, (kw - used) * 4);
            }
        }
    } else {
        for (int64_t i; (i = t.take() * LANES) < p.m;) {
            const int64_t n = p.m - i < LANES ? p.m - i : LANES;
            turn<HALF>(a, i, n, p.k, to + i * kw, kw);
            for (int64_t j = i; j < i + n; j++) {
                memset(to + j * kw + used, 0, (kw - used) * 4);
            }
        }
    }
    t.barrier();
    return { to, kw };
}

// The pieces of a product that threads take: whole strips, as many as share out evenly, and the remaining ones cut into
// groups of rows.
struct pieces {
    int64_t m, whole, each, groups, total;

    pieces(const product & p, int nth) : m(p.m) {
        const int64_t strips = (p.n + p.width - 1) / p.width;
        whole                = strips / nth * nth;
        each                 = ((m + nth - 1) / nth + p.group - 1) / p.group * p.group;
        groups               = (m + each - 1) / each;
        total                = whole + (strips - whole) * groups;
    }

    void at(int64_t i, int64_t & strip, int64_t & first, int64_t & end) const {
        strip = i;
        first = 0;
        end   = m;
        if (i >= whole) {
            strip = whole + (i - whole) / groups;
            first = (i - whole) % groups * each;
            end   = first + each < m ? first + each : m;
        }
    }
};

// Packs a stretch of a strip, with zeros behind.
template <bool HALF> static void pack(const product & p, const stretch & part, int64_t n0, int64_t cols,
                                      int32_t * panels) {
    (p.b.along ? pack_along<HALF> : pack_across<HALF>) (p, part, n0, cols, panels);
    for (int64_t j = 0, used = word_count<HALF>(part.n); j < p.width; j += PANEL) {
        memset(panels + j * part.words + used * PANEL, 0, (part.words - used) * PANEL * 4);
    }
}

// Computes the product: a stretch of k after the other is packed and added up. use(row, rows, column, columns, c, ldc)
// gets every part of C as floats that it may change.
template <bool HALF, typename F> static void multiply(const thread & t, const product & p, F use) {
    // numbers of a word; words that are packed at once
    enum { NUMBERS = HALF ? 2 : 1, TILED = HALF && HAS_AMX, PACKED = TILED ? 1 << 17 : 1 << 16 };
    const int64_t              block = TILED || !p.b.along ? SHORT : LONG;
    const lines                a     = prepare<HALF>(t, p);
    const int64_t              kw = packed_count<HALF>(p.k), room = PACKED / p.width, most = kw < room ? kw : room,
                               kept = p.m < KEPT ? p.m : KEPT;
    const pieces               all(p, t.nth);
    float *                    c      = (float *) t.scratch(p.width * (kept + most) * 4);
    int32_t *                  panels = (int32_t *) (c + p.width * kept);
    int64_t                    packed = -1;
    const tile_registers<HALF> registers;
    for (int64_t i; (i = t.take()) < all.total;) {
        int64_t strip, start, end;
        all.at(i, strip, start, end);
        const int64_t n0 = strip * p.width, cols = p.n - n0 < p.width ? p.n - n0 : p.width;
        for (int64_t first = start; first < end; first += KEPT) {
            const int64_t last = end - first < KEPT ? end : first + KEPT;
            for (int64_t w = 0; w < kw; w += room) {
                const int64_t left = p.k - NUMBERS * w;
                const stretch part = { NUMBERS * w, left < NUMBERS * room ? left : NUMBERS * room,
                                       kw - w < room ? kw - w : room };
                if (strip != packed || kw > room) {
                    pack<HALF>(p, part, n0, cols, panels);
                    packed = strip;
                }
                for (int64_t r = first; r < last; r += CHUNK) {
                    const int64_t rows = last - r < CHUNK ? last - r : CHUNK;
                    float *       to   = c + (r - first) * p.width;
                    for (int64_t d = 0; d < part.words; d += block) {
                        const int64_t   depth = part.words - d < block ? part.words - d : block;
                        const int32_t * from  = a.at + r * a.stride + w + d;
                        for (int64_t j = 0; j < cols; j += PANEL) {
                            best_tiles<HALF>(rows, depth, from, a.stride, panels + j * part.words + d * PANEL,
                                             { to + j, p.width, w + d > 0 });
                        }
                    }
                    if (w + part.words == kw) {
                        use(r, rows, n0, cols, to, p.width);
                    }
                }
            }
        }
    }
}

template <typename F> static void multiply(const thread & t, const product & p, bool half, F use) {
    if (HAS_BF16 && half) {
        multiply<HAS_BF16>(t, p, use);
    } else {
        multiply<false>(t, p, use);
    }
}

// The width of strips of n columns of w. Where they run across its rows, wide ones read more of a row at once and have
// whole blocks; wide ones also load A less often, which tiles need. Yet each thread should have some.
static inline int64_t strip_width(const thread & t, const ggml_tensor * w, bool across, bool half, int64_t n) {
    const int64_t least = across && ggml_blck_size(w->type) > STRIP ? WIDEST : STRIP;
    int64_t       width = across || (half && HAS_AMX) ? WIDEST : STRIP;
    while (width > least && n < 2 * width * t.nth) {
        width /= 2;
    }
    return width;
}

static inline const float * numbers(const ggml_tensor * t) { return t ? (const float *) t->data : nullptr; }

#include "dots.hpp"
#include "bytes.hpp"

// Computes the product in one of the ways of mul_mat.
template <typename F> static void multiply(const thread & t, const product & p, bool half, int way, F use) {
    if (way >= GGML_VERA_BYTES && has_quants(p.b.t->type)) {
        multiply_bytes(t, p, way == GGML_VERA_TURNED, use);
    } else if (way && !(HAS_BF16 && half)) {
        multiply_dots(t, p, use);
    } else {
        multiply(t, p, half, use);
    }
}

// dst = C ⊙ t + acc; those of several layers lie behind each other in a row.
static void linear(const thread & t, ggml_tensor * dst, const product & p, bool half, const float * by,
                   const ggml_tensor * acc, int way = 0, int64_t step = 0) {
    const int64_t tokens = p.m / p.layers;
    const auto    finish = [&](int64_t r, int64_t rows, int64_t n0, int64_t cols, float * c, int64_t ldc) {
        const size_t size = dst->type == BF16 ? 2 : 4;
        for (int64_t i = 0; i < rows; i++, c += ldc) {
            const int64_t token = (r + i) % tokens, layer = (r + i) / tokens, at = layer * p.n + n0;
            if (by) {
                scale(c, by + layer * step + n0, cols);
            }
            if (acc) {
                const float * more = (const float *) row(acc, token) + at;
                for (int64_t j = 0; j < cols; j++) {
                    c[j] += more[j];
                }
            }
            put(dst, row(dst, token) + at * size, c, cols);
        }
    };
    multiply(t, p, half, way, finish);
}

// Sources: w, x, then s, t and acc or NULL; parameter: the way.
static void mul_mat(const thread & t, ggml_tensor * dst) {
    ggml_tensor ** src    = t.src;
    const int64_t  layers = src[2] ? src[2]->ne[1] : 1;
    const bool     half   = src[1]->type == BF16;
    const product  p      = { src[1]->ne[1] * layers,
                              src[0]->ne[1],
                              src[0]->ne[0],
                              { src[1], true },
                              { src[0], true },
                              numbers(src[2]),
                              strip_width(t, src[0], false, half, src[0]->ne[1]),
                              GROUP,
                              layers,
                              layers > 1 ? (int64_t) src[2]->nb[1] / 4 : 0 };
    linear(t, dst, p, half, numbers(src[3]), src[4], t.with->i[0], layers > 1 ? (int64_t) src[3]->nb[1] / 4 : 0);
}

static void mul_mat_back(const thread & t, ggml_tensor * dst) {
    ggml_tensor ** src  = t.src;
    const bool     half = src[1]->type == BF16;
    const product  p    = { src[1]->ne[1],
                            src[0]->ne[0],
                            src[0]->ne[1],
                            { src[1], true },
                            { src[0], false },
                            numbers(src[2]),
                            strip_width(t, src[0], true, half, src[0]->ne[0]),
                            GROUP };
    linear(t, dst, p, half, numbers(src[3]), src[4]);
}

// Sources: g, x.
static void weight_grad(const thread & t, ggml_tensor * dst) {
    const ggml_tensor *g = t.src[0], *x = t.src[1];
    const bool         half = g->type == BF16;
    linear(t, dst,
           { g->ne[0],
             x->ne[0],
             g->ne[1],
             { g, false },
             { x, false },
             nullptr,
             strip_width(t, x, true, half, x->ne[0]),
             GROUP },
           half, nullptr, nullptr);
}
