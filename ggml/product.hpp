// Matrix products C[m, n] = Σ_k A[m, k] · s[k] · B[n, k]. A function of the caller gets each part of C while it is in
// the cache.
//
// Both operands are seen as 32-bit words along k: one float, or two bfloat16 values. A is read row by row where it is.
// B is packed into panels, a strip of 64 to 256 columns at a time: a panel interleaves PANEL columns, word k of all of
// them side by side. One thread unpacks a strip, which stays in its second-level cache and meets all rows of A. For K
// words, M rows and 6 × PANEL accumulators, each pass over k loads PANEL + 6 words for 6 · PANEL multiplications. A
// float copy of B never exists outside of a strip.
//
// One thread sums every element of C, in the order of k, block by block. So a result depends neither on the number of
// threads nor on the width of the strips.
#pragma once

#include "amx.hpp"
#include "transpose.hpp"
#include "unpack.hpp"

namespace vera {
namespace KERNELS {

enum {
    GROUP = HAS_AMX ? 32 : 24,  // work is cut at multiples of so many rows of A
    STRIP  = 64,                // the fewest columns of a strip
    WIDEST = 256,               // the most columns of a strip: a block of the types with the longest
    CHUNK  = 96,                // rows of A that meet a block of k together
    SHORT  = 256,               // words of k in a block, for wide strips and for AMX
    LONG   = 1024,              // for narrow strips: long reads are worth more here than the first-level cache
    KEPT   = 16 * CHUNK,        // rows of C that a thread holds
};

// n values as words along k: floats, or pairs of bfloat16; an odd last one is paired with 0.
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

// The words that n values take in packed operands, padded to what the kernel takes at once.
template <bool HALF> static inline int64_t packed_count(int64_t n) {
    enum { STEP = !HALF ? 1 : HAS_AMX ? 16 : PAIRED ? 2 : 1 };
    return (word_count<HALF>(n) + STEP - 1) / STEP * STEP;
}

#if PAIRED
// Joins the values of two vectors of k.
static inline int32x4_t pairs(uint16x4_t even, uint16x4_t odd) {
    return vreinterpretq_s32_u16(vcombine_u16(vzip1_u16(even, odd), vzip2_u16(even, odd)));
}

static inline int32x4_t pairs(vf even, vf odd) {
    return pairs(vreinterpret_u16_bf16(vcvt_bf16_f32((float32x4_t) even)),
                 vreinterpret_u16_bf16(vcvt_bf16_f32((float32x4_t) odd)));
}
#elif HAS_BF16
// The values of the lower half paired with those of the upper half: 16 words.
static inline __m512i pairs(__m512i both) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, both);
}

static inline __m512i pairs(vf even, vf odd) {
    return pairs((__m512i) _mm512_cvtne2ps_pbh((__m512) odd, (__m512) even));
}
#endif

// Joins two rows of k into one of words: pairs of bfloat16.
static inline void interleave(vf even, vf odd, int32_t * to) {
#if PAIRED
    vst1q_s32(to, pairs(even, odd));
#elif HAS_BF16
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
    for (; j + LANES <= n; j += LANES) {
        interleave(load(even + j), load(odd + j), to + j);
    }
#endif
    for (; j < n; j++) {
        to[j] = (int32_t) ((uint32_t) to_bf16(even[j]) | (uint32_t) to_bf16(odd[j]) << 16);
    }
}

static inline void interleave(const uint16_t * even, const uint16_t * odd, int32_t * to, int64_t n) {
    int64_t j = 0;
#if PAIRED
    for (; j + 4 <= n; j += 4) {
        vst1q_s32(to + j, pairs(vld1_u16(even + j), vld1_u16(odd + j)));
    }
#elif HAS_BF16
    for (; j + 16 <= n; j += 16) {
        const __m512i low = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *) (even + j)));
        _mm512_storeu_si512(to + j, pairs(_mm512_inserti64x4(low, _mm256_loadu_si256((const __m256i *) (odd + j)), 1)));
    }
#endif
    for (; j < n; j++) {
        to[j] = (int32_t) ((uint32_t) even[j] | (uint32_t) odd[j] << 16);
    }
}

// An operand as it is stored: the rows of a tensor run along k, or along the other dimension.
struct source {
    const ggml_tensor * t;
    bool                along;
};

// Factors of the columns of rows, from column `first` of t on: those of float32 t [·], for all rows; with slots, row
// i's are row slots[i] of a table t [·, ·], float16; without t, ones.
struct factors {
    const ggml_tensor * t     = nullptr;
    const int32_t *     slots = nullptr;
    int64_t             first = 0;

    factors() {}
    factors(const ggml_tensor * all, const ggml_tensor * of = nullptr, int64_t from = 0)
        : t(all), slots(of ? (const int32_t *) of->data : nullptr), first(from) {}

    // Those of row i, from column j on.
    const char * of_row(int64_t i, int64_t j) const {
        return slots ? row(t, slots[i]) + (first + j) * 2 : (const char *) t->data + (first + j) * 4;
    }

    // to = from ⊙ the factors of row i + acc, for n columns from j on; acc may be NULL.
    template <typename D> void multiply(int64_t i, int64_t j, const float * from, const float * acc, D * to,
                                        int64_t n) const {
        if (!t) {
            multiply((const float *) nullptr, from, acc, to, n);
        } else if (slots) {
            multiply((const half *) of_row(i, j), from, acc, to, n);
        } else {
            multiply((const float *) of_row(i, j), from, acc, to, n);
        }
    }

    template <typename S, typename D> static void multiply(const S * by, const float * from, const float * acc, D * to,
                                                           int64_t n) {
        by_vectors(n, [&](int64_t j, auto some) {
            vf v = load(from + j, some);
            if (by) {
                v = v * load(by + j, some);
                in_register(v);  // no fused multiply-add
            }
            if (acc) {
                v = v + load(acc + j, some);
            }
            store(to + j, v, some);
        });
    }
};

struct product {
    int64_t         m, n, k;
    source          a, b;
    factors         by;              // of k, by which A is multiplied when it is prepared
    int64_t         width;           // columns of a strip
    int64_t         group;           // work is cut at multiples of so many rows
    const int32_t * rows = nullptr;  // which rows of the tensor A has, or NULL for all

    // Row i of A times its factors, as floats: where it is, or in buf.
    const float * row_of_a(int64_t i, float * buf) const {
        const float * from = floats(a.t, row(a.t, rows ? rows[i] : i), buf, k);
        if (!by.t) {
            return from;
        }
        by.multiply(i, 0, from, nullptr, buf, k);
        return buf;
    }
};

// A range of k: elements first … first + n, in `words` words of the panels.
struct stretch {
    int64_t first, n, words;
};

// 32 of the `cols` rows of a tensor that begin at row n0, from row j on. Behind the end, the last row is repeated;
// nobody uses the result.
static inline void find_rows(const ggml_tensor * t, int64_t n0, int64_t j, int64_t cols, const char ** rows) {
    for (int64_t i = 0; i < 32; i++) {
        rows[i] = row(t, n0 + (j + i < cols ? j + i : cols - 1));
    }
}

// Packs a range of k of `cols` rows of a quantised tensor, whose rows run along k, as columns of panels: word w of
// column j goes to panels[j / PANEL][w][j % PANEL].
template <bool HALF> static void pack_quants(const product & p, const stretch & part, int64_t n0, int64_t cols,
                                             int32_t * panels) {
    const ggml_tensor * t     = p.b.t;
    const int64_t       block = ggml_blck_size(t->type);
    const size_t        size  = ggml_type_size(t->type);
    transposed_quants   columns;
    enum { AHEAD = 512 };
    for (int64_t j = 0; j < p.width; j += 32) {
        const char * rows[32];
        find_rows(t, n0, j, cols, rows);
        for (int64_t k = 0; k < part.n; k += 32) {
            for (int i = 0; i < 32 && (part.first + k) % block == 0; i++) {
                prefetch(rows[i] + (part.first + k) / block * size + AHEAD, size);
            }
            transpose_rows(t->type, rows, (part.first + k) / block * size, (int) ((part.first + k) % block / 32),
                           columns);
            for (int i = 0; i < 32; i += LANES) {
                int32_t * to =
                    panels + (j + i) / PANEL * PANEL * part.words + word_count<HALF>(k) * PANEL + (j + i) % PANEL;
                vf even;
                columns.each(i, [&](int column, vf v) {
                    if (!HALF) {
                        store((float *) to + column * PANEL, v);
                    } else if (column % 2 == 0) {
                        even = v;
                    } else {
                        interleave(even, v, to + column / 2 * PANEL);
                    }
                });
            }
        }
    }
}

// The same for a tensor of any type.
template <bool HALF> static void pack_along(const product & p, const stretch & part, int64_t n0, int64_t cols,
                                            int32_t * panels) {
    enum { BLOCK = 256 };
    const ggml_tensor * t      = p.b.t;
    const size_t        size   = ggml_type_size(t->type);
    const int64_t       block  = ggml_blck_size(t->type);
    const bool          direct = HALF ? t->type == BF16 : t->type == F32;
    alignas(64) float   buf[2 * BLOCK];
    alignas(64) int32_t in[LANES * BLOCK];
    if (has_quants(t->type)) {
        pack_quants<HALF>(p, part, n0, cols, panels);
        return;
    }
    // words can be transposed straight from the tensor
    const bool straight = direct && t->nb[1] % 4 == 0 && (uintptr_t) t->data % 4 == 0;
    for (int64_t j = 0; j < p.width; j += LANES) {
        int32_t * to = panels + j / PANEL * PANEL * part.words + j % PANEL;
        for (int64_t k = 0; k < part.n; k += BLOCK) {
            const int64_t n = part.n - k < BLOCK ? part.n - k : BLOCK, w = word_count<HALF>(n),
                          padded = (w + LANES - 1) / LANES * LANES;
            int32_t *     panel  = to + word_count<HALF>(k) * PANEL;
            if (straight && j + LANES <= cols && n % (HALF ? 2 : 1) == 0 && w % LANES == 0) {
                const int32_t * from = (const int32_t *) (row(t, n0 + j) + (part.first + k) * size);
                for (int64_t i = 0; i < w; i += LANES) {
                    transpose(from + i, t->nb[1] / 4, panel + i * PANEL, PANEL);
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
                    const int64_t skip = (part.first + k) % block;  // of the block in which the part begins
                    unpack(t, from, buf, (skip + n + block - 1) / block * block);
                    words<HALF>(buf + skip, line, n);
                }
            }
            int64_t i = 0;
            for (; i + LANES <= w; i += LANES) {
                transpose(in + i, BLOCK, panel + i * PANEL, PANEL);
            }
            if (i < w) {
                int32_t last[LANES * LANES];
                transpose(in + i, BLOCK, last, LANES);
                for (int64_t r = 0; i + r < w; r++) {
                    memcpy(panel + (i + r) * PANEL, last + r * LANES, LANES * 4);
                }
            }
        }
    }
}

// Packs a range of columns n0 … n0 + cols of a tensor whose rows are k.
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
        if (!HALF && cols == whole && (t->type == BF16 || t->type == F32)) {
            for (int64_t j = 0; j < whole; j += PANEL) {
                if (t->type == BF16) {
                    copy((const uint16_t *) (row(t, k) + offset) + j, (float *) to + j * kw, PANEL);
                } else {
                    memcpy(to + j * kw, row(t, k) + offset + j * 4, PANEL * 4);
                }
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

// Operand A as words: the tensor itself if its rows run along k in the product's type, else a transposed or converted
// copy, which the threads share. It is a copy too where rows stand in pairs (tiles.hpp).
struct lines {
    const int32_t * words;
    int64_t         stride;
};

// Transposes columns m0 … m0 + n of a tensor whose rows are k into rows of words; n is at most LANES.
template <bool HALF> static void transpose_columns(const ggml_tensor * t, int64_t m0, int64_t n, int64_t k,
                                                   int32_t * to, int64_t stride) {
    alignas(64) float   buf[2][LANES];
    alignas(64) int32_t block[LANES * LANES], transposed[LANES * LANES];
    const int64_t       kw   = word_count<HALF>(k);
    const size_t        size = t->type == BF16 ? 2 : 4;
    memset(block, 0, sizeof block);
    for (int64_t w = 0; w < kw; w += LANES) {
        const int64_t some = kw - w < LANES ? kw - w : LANES;
        for (int64_t i = 0; i < some; i++) {
            const int64_t p    = HALF ? 2 * (w + i) : w + i;
            const char *  r0   = row(t, p) + m0 * size;
            const bool    pair = p + 1 < k;
            if (HALF && t->type == BF16) {
                const uint16_t zeros[LANES] = {};
                interleave((const uint16_t *) r0, pair ? (const uint16_t *) (r0 + t->nb[1]) : zeros, block + i * LANES,
                           n);
                continue;
            }
            if (!HALF && t->type == BF16) {
                copy((const uint16_t *) r0, (float *) block + i * LANES, n);
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
        transpose(block, LANES, transposed, LANES);
        for (int64_t i = 0; i < n; i++) {
            memcpy(to + i * stride + w, transposed + i * LANES, some * 4);
        }
    }
}

template <bool HALF> static lines prepare(const thread & t, const product & p) {
    const ggml_tensor * a  = p.a.t;
    const int64_t       kw = packed_count<HALF>(p.k), used = word_count<HALF>(p.k);
    enum { PAIRS = HALF && PAIRED };
    if (!PAIRS && p.a.along && !p.by.t && !p.rows && kw == used && a->nb[1] % 4 == 0 &&
        (HALF ? a->type == BF16 && p.k % 2 == 0 && (uintptr_t) a->data % 4 == 0 : a->type == F32)) {
        return { (const int32_t *) a->data, (int64_t) a->nb[1] / 4 };
    }
    if (t.ith == 0) {
        t.shared((p.m + PAIRS) * kw * 4);
    }
    t.barrier();
    int32_t * to  = (int32_t *) t.shared(0);
    float *   buf = (float *) t.scratch((PAIRS ? 2 * kw : p.k) * sizeof(float));
    // of rows i … i + LANES
    const auto pair = [&](int64_t i) {
#if PAIRED
        for (int64_t j = i; PAIRS && j < i + LANES && j < p.m; j += 2) {
            if (j + 1 == p.m) {
                memset(to + p.m * kw, 0, kw * 4);
            }
            pair_rows(to + j * kw, kw, (int32_t *) buf);
        }
#endif
        (void) i;
    };
    if (p.a.along) {
        for (int64_t b; (b = t.take() * LANES) < p.m;) {
            for (int64_t i = b; i < b + LANES && i < p.m; i++) {
                words<HALF>(p.row_of_a(i, buf), to + i * kw, p.k);
                memset(to + i * kw + used, 0, (kw - used) * 4);
            }
            pair(b);
        }
    } else {
        for (int64_t i; (i = t.take() * LANES) < p.m;) {
            const int64_t n = p.m - i < LANES ? p.m - i : LANES;
            transpose_columns<HALF>(a, i, n, p.k, to + i * kw, kw);
            for (int64_t j = i; j < i + n; j++) {
                memset(to + j * kw + used, 0, (kw - used) * 4);
            }
            pair(i);
        }
    }
    t.barrier();
    return { to, kw };
}

// How a product is divided among threads: whole strips, as many as give every thread the same number; the remaining
// strips are cut into groups of rows.
struct pieces {
    int64_t m, whole, each, groups, total;

    pieces(const product & p, int nth) : m(p.m) {
        const int64_t strips = (p.n + p.width - 1) / p.width;
        whole                = strips / nth * nth;
        each                 = ((m + nth - 1) / nth + p.group - 1) / p.group * p.group;
        groups               = (m + each - 1) / each;
        total                = whole + (strips - whole) * groups;
    }

    void get(int64_t i, int64_t & strip, int64_t & first, int64_t & end) const {
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

// Packs a range of k of a strip, padded with zeros.
template <bool HALF> static void pack(const product & p, const stretch & part, int64_t n0, int64_t cols,
                                      int32_t * panels) {
    (p.b.along ? pack_along<HALF> : pack_across<HALF>) (p, part, n0, cols, panels);
    for (int64_t j = 0, used = word_count<HALF>(part.n); j < p.width; j += PANEL) {
        memset(panels + j * part.words + used * PANEL, 0, (part.words - used) * PANEL * 4);
#if PAIRED
        if (HALF) {
            pair_columns(panels + j * part.words, part.words);
        }
#endif
    }
}

// Goes through a product: for each piece, and for up to `room` of the `count` packed parts of k after the other,
// calls pack(first, n, column, columns) unless they are packed, and tiles(first, n, row, rows, column, columns, to),
// which adds their part of C to rows of c [min(m, KEPT), width]. use(row, rows, column, columns, c, ldc) gets every
// part of C, as floats that it may change.
template <typename P, typename T, typename F> static void sum_up(const thread & t, const product & p, int64_t count,
                                                                 int64_t room, float * c, P pack, T tiles, F use) {
    const pieces all(p, t.nth);
    int64_t      packed = -1;
    for (int64_t i; (i = t.take()) < all.total;) {
        int64_t strip, start, end;
        all.get(i, strip, start, end);
        const int64_t n0 = strip * p.width, cols = p.n - n0 < p.width ? p.n - n0 : p.width;
        for (int64_t first = start; first < end; first += KEPT) {
            const int64_t last = end - first < KEPT ? end : first + KEPT;
            for (int64_t w = 0; w < count; w += room) {
                const int64_t n = count - w < room ? count - w : room;
                if (strip != packed || count > room) {
                    pack(w, n, n0, cols);
                    packed = strip;
                }
                for (int64_t r = first; r < last; r += CHUNK) {
                    const int64_t rows = last - r < CHUNK ? last - r : CHUNK;
                    float *       to   = c + (r - first) * p.width;
                    tiles(w, n, r, rows, n0, cols, to);
                    if (w + n == count) {
                        use(r, rows, n0, cols, to, p.width);
                    }
                }
            }
        }
    }
}

// Computes the product, whose parts use gets.
template <bool HALF, typename F> static void multiply(const thread & t, const product & p, F use) {
    // values in a word; words that are packed together
    enum { VALUES = HALF ? 2 : 1, TILED = HALF && HAS_AMX, PACKED = TILED ? 1 << 17 : 1 << 16 };
    const int64_t              block = TILED || !p.b.along ? SHORT : LONG;
    const lines                a     = prepare<HALF>(t, p);
    const int64_t              kw = packed_count<HALF>(p.k), room = PACKED / p.width, most = kw < room ? kw : room,
                               kept   = p.m < KEPT ? p.m : KEPT;
    float *                    c      = (float *) t.scratch(p.width * (kept + most) * 4);
    int32_t *                  panels = (int32_t *) (c + p.width * kept);
    const tile_registers<HALF> registers;
    sum_up(
        t, p, kw, room, c,
        [&](int64_t w, int64_t n, int64_t n0, int64_t cols) {
            const int64_t left = p.k - VALUES * w;
            pack<HALF>(p, { VALUES * w, left < VALUES * room ? left : VALUES * room, n }, n0, cols, panels);
        },
        [&](int64_t w, int64_t n, int64_t r, int64_t rows, int64_t, int64_t cols, float * to) {
            for (int64_t d = 0; d < n; d += block) {
                const int64_t   depth = n - d < block ? n - d : block;
                const int32_t * from  = a.words + r * a.stride + (w + d) * (HALF && PAIRED ? 2 : 1);
                for (int64_t j = 0; j < cols; j += PANEL) {
                    best_tiles<HALF>(rows, depth, from, a.stride, panels + j * n + d * PANEL,
                                     { to + j, p.width, w + d > 0 });
                }
            }
        },
        use);
}

template <typename F> static void multiply(const thread & t, const product & p, bool half, F use) {
    if (HAS_BF16 && half) {
        multiply<HAS_BF16>(t, p, use);
    } else {
        multiply<false>(t, p, use);
    }
}

// The width of strips for n columns of w. Where strips run across w's rows, wide ones read more of a row at once and
// hold whole blocks. Wide strips also load A less often, which AMX needs. Yet each thread should get some.
static inline int64_t strip_width(const thread & t, const ggml_tensor * w, bool across, bool half, int64_t n) {
    const int64_t least = across && ggml_blck_size(w->type) > STRIP ? WIDEST : STRIP;
    int64_t       width = across || (half && HAS_AMX) ? WIDEST : STRIP;
    while (width > least && n < 2 * width * t.nth) {
        width /= 2;
    }
    return width;
}

}  // namespace KERNELS
}  // namespace vera
